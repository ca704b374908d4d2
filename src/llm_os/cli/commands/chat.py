"""chat: talk to a deployment that is there, in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from llm_os.cli.conversation import Conversation, Message
from llm_os.cli.link import looking
from llm_os.cli.render import as_json_option, print_json
from llm_os.client.gateway import GREEDY, Gateway
from llm_os.client.transport import place
from llm_os.errors import AuthenticationError, ConflictError, InvalidInputError, UnavailableError
from llm_os.settings import Settings
from llm_os.spec import api
from llm_os.spec.deployments import Deployment

CHATS = frozenset({"text-generation", "text2text-generation"})


@click.command(epilog='Example: llm-os chat support-bot --system "Be brief."')
@click.argument("name")
@click.argument("prompt", required=False)
@click.option("--system", help="How the model shall behave.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0: always the same; so it is if left out.")
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True)
@as_json_option
def chat(
    name: str, prompt: str | None, system: str | None, max_tokens: int, as_json: bool, **given: float | None
) -> int:
    """Chat with a deployment; with a prompt, or one on standard input, ask it once."""
    gateway, version = _gateway(name)
    options = {"max_tokens": max_tokens, **{key: value for key, value in given.items() if value is not None}}

    def answer(messages: Sequence[Message]) -> Iterator[str]:
        return gateway.stream(messages, options, GREEDY)

    conversation = Conversation(answer, system=system)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt is None and as_json:
        raise InvalidInputError("With --json there must be a prompt.", hint='llm-os chat NAME "..." --json')
    if prompt is None:
        return conversation.talk(f"{name} serves {version}.")
    if not prompt:
        raise InvalidInputError("There is nothing to ask.", hint='Give a prompt: llm-os chat NAME "..."')
    if as_json:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        print_json({"deployment": name, "version": version, "answer": gateway.chat(messages, options, GREEDY)})
    else:
        conversation.say(prompt)
    return 0


def _gateway(name: str) -> tuple[Gateway, str]:
    """The way to a deployment with the home's own key, and what it serves. Raises what stands in the way."""
    transport = looking()
    found = transport.call("GET", place("deployments", name, "deployment"), Deployment)
    if found.state.ended:
        raise ConflictError(f"{name} is {found.state.value}.", hint=f"Deploy it again: llm-os deploy {found.version}")
    if found.task not in CHATS:
        raise InvalidInputError(f"{name} serves {found.task}, it does not chat.", hint="See `llm-os predict --help`.")
    url = transport.call("GET", "/v1/status", api.KernelStatus).gateway
    if url is None:
        raise UnavailableError("The gateway is not ready.", hint="`llm-os why gateway` says why.")
    path = Settings().admin_key
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AuthenticationError(
            f"The key of this home cannot be read: {error}.", hint=f"`llm-os doctor` says more of {path}."
        ) from error
    return Gateway(url, key, found.spec.name), found.version


COMMANDS = {"chat": chat}
