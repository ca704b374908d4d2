"""predict, run, deploy, stop: asking models, and serving them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import click

from llm_os.cli.commands.data import further
from llm_os.cli.conversation import Conversation, Message
from llm_os.cli.link import looking
from llm_os.cli.render import as_json_option, print_json
from llm_os.client.transport import place
from llm_os.errors import InvalidInputError
from llm_os.session import load_model
from llm_os.spec.deployments import Deployment


@click.command(epilog='Example: llm-os predict transformer-sentic_data "What a film!"')
@click.argument("model")
@click.argument("texts", nargs=-1, required=True)
@as_json_option
def predict(model: str, texts: tuple[str, ...], as_json: bool) -> int:
    """Classify texts."""
    found = load_model(model).predict(list(texts))
    if as_json:
        print_json([dataclasses.asdict(prediction) for prediction in found])
        return 0
    for text, prediction in zip(texts, found, strict=True):
        print(f"{prediction}  {text}")
    return 0


@click.command(epilog='Example: llm-os run smollm2 "What is the capital of France?"')
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--max-tokens", default=256, show_default=True)
@as_json_option
def run(model: str, prompt: str | None, max_tokens: int, as_json: bool) -> int:
    """Chat with a model; with a prompt, ask it once."""
    handle = load_model(model)

    def answer(messages: Sequence[Message]) -> Iterator[str]:
        return handle.generate(list(messages), max_tokens, stream=True)

    conversation = Conversation(answer)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is not None:
        if as_json:
            print_json({"model": handle.version, "answer": handle.generate(prompt, max_tokens)})
        else:
            conversation.say(prompt)
        return 0
    if as_json:
        raise InvalidInputError("With --json there must be a prompt.", hint='llm-os run MODEL "..." --json')
    return conversation.talk(f"{handle.version}.")


@click.command(epilog="Example: llm-os deploy smollm2 --name chat")
@click.argument("model")
@click.option("--name", help="What requests call it; the card's name if left out.")
@click.option("--engine", help="The engine that serves it; chosen if left out.")
@click.option("--option", "more", multiple=True, metavar="NAME=VALUE", help="An option of the engine.")
@as_json_option
def deploy(model: str, name: str | None, engine: str | None, more: tuple[str, ...], as_json: bool) -> int:
    """Serve a model until it is stopped. Prints its address and a key of its own."""
    options = further(more, engine="--engine", name="--name", keep=None)
    served = load_model(model).deploy(name, keep=True, **options, **({"engine": engine} if engine else {}))
    if as_json:
        print_json({"name": served.name, "url": served.url, "key": served.key, "version": served.version})
        return 0
    print(f"{served.name} serves {served.version}.")
    print(f"  URL  {served.url}\n  Key  {served.key}   (shown once)")
    print(f"End it with: llm-os stop {served.name}")
    return 0


@click.command(epilog="Example: llm-os stop chat")
@click.argument("name")
@as_json_option
def stop(name: str, as_json: bool) -> int:
    """End a deployment."""
    found = looking().call("POST", f"{place('deployments', name, 'deployment')}/stop", Deployment)
    print_json(found) if as_json else print(f"{found.spec.name} is {found.state.value}.")
    return 0


COMMANDS = {"predict": predict, "run": run, "deploy": deploy, "stop": stop}
