"""predict, run, deploy, stop: asking models, and serving them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from llm_os.cli.conversation import Conversation, Message
from llm_os.cli.link import looking
from llm_os.cli.options import further, labels_of, scaling_of, scaling_options
from llm_os.cli.render import as_json_option, print_json
from llm_os.client.transport import place
from llm_os.errors import InvalidInputError
from llm_os.session import load_model
from llm_os.spec.deployments import Deployment

OWN: dict[str, str | None] = {
    "engine": "--engine",
    "precision": "--precision",
    "name": "--name",
    "replicas": "--replicas",
    "adapters": "--adapter",
    **dict.fromkeys(("scaling", "labels", "update", "follow", "keep", "check", "calibrate")),
}
"""Words of a deployment's own, which are no options of engines, and their flags."""


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


@click.command(epilog='Example: llm-os run smollm2 "What is the opposite of hot?"')
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
@click.option("--engine", multiple=True, help="The engine that serves it, or several; the best here if left out.")
@click.option("--precision", help="Of the weights while they are served: int8, bf16 ...; any, if left out.")
@click.option("--option", "-o", "more", multiple=True, metavar="NAME=VALUE", help="An option of the engine.")
@click.option("--replicas", type=click.IntRange(1, 64), help="Replicas; one, if left out.")
@scaling_options
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A word of yours, for lists and rules.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=VERSION", help="An adapter beside the model.")
@click.option("--no-check", is_flag=True, help="Do not compare the engine with PyTorch before it serves.")
@click.option("--no-calibrate", is_flag=True, help="Do not try the engines that could serve it; take what is known.")
@as_json_option
def deploy(model: str, name: str | None, as_json: bool, **given: Any) -> int:
    """Serve a model until it is stopped. Prints its address and a key of its own.

    With MODEL as CARD@ALIAS it follows the alias: when that moves, the deployment is updated.

    Several --engine stand side by side, the one for few requests first; an option is then for all of them, or, as
    ENGINE.NAME=VALUE, for one.
    """
    options = further(given["more"], **OWN)
    own: dict[str, Any] = {"engine": given["engine"] or None, **{n: given[n] for n in ("precision", "replicas")}}
    if given["no_calibrate"]:
        own["calibrate"] = False
    own["scaling"] = scaling_of(*(given[n] for n in ("least", "most", "first_token", "tokens_in_flight")))
    if given["labels"]:
        own["labels"] = labels_of(given["labels"])
    if given["adapters"]:
        own["adapters"] = {key: str(value) for key, value in further(given["adapters"]).items()}
    alias = model.partition("@")[2]
    follow = alias if alias and not alias.isdigit() and not model.startswith("sha256:") else None
    own = {key: value for key, value in own.items() if value is not None}
    served = load_model(model).deploy(name, keep=True, follow=follow, check=not given["no_check"], **own, **options)
    parities, because = served.parities, served.because
    if as_json:
        about = {"name": served.name, "url": served.url, "key": served.key, "version": served.version}
        first = next(iter(parities.values()), None)
        several = {"parities": parities} if len(parities) > 1 else {}
        print_json({**about, "engine": served.engine, "because": because, "parity": first, **several})
        return 0
    print(f"{served.name} serves {served.version}.")
    if because:
        print(f"Chosen: {because}.")
    for engine, parity in parities.items():
        if parity is not None:
            print(f"{engine if len(parities) > 1 else 'It'} says what PyTorch says: {parity.sentence}.")
    for engine in _not_there(served.name):
        print(f"{engine} does not answer yet, the other does: llm-os why {served.name}")
    print(f"  URL  {served.url}\n  Key  {served.key}   (shown once)")
    print(f"End it with: llm-os stop {served.name}")
    return 0


def _not_there(name: str) -> list[str]:
    """Engines side by side of which no replica answers: the deployment does, as soon as one of them does."""
    record = looking().call("GET", place("deployments", name, "deployment"), Deployment)
    there = {replica.engine for replica in record.replicas if replica.state == "ready"}
    several = dict.fromkeys(record.engines) if len(record.engines) > 1 else ()
    return [engine for engine in several if engine not in there]


@click.command(epilog="Example: llm-os stop chat")
@click.argument("name")
@as_json_option
def stop(name: str, as_json: bool) -> int:
    """End a deployment."""
    found = looking().call("POST", f"{place('deployments', name, 'deployment')}/stop", Deployment)
    print_json(found) if as_json else print(f"{found.spec.name} is {found.state.value}.")
    return 0


COMMANDS = {"predict": predict, "run": run, "deploy": deploy, "stop": stop}
