"""A chat in the terminal: asks, shows answers as they come, as Markdown where a person looks; knows no server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llm_os.errors import LLMOSError

Message = Mapping[str, Any]
Answer = Callable[[Sequence[Message]], Iterator[str]]
"""Pieces of the answer to messages. Closing the iterator stops the work."""

HELP = """/reset        forget what was said
/system TEXT  tell the model how to behave, and forget what was said
/help         show this
Ctrl-C stops an answer, Ctrl-D ends the chat."""


class Conversation:
    """What was said so far, and how it goes on.

    Args:
        answer: asks the model.
        system: how the model shall behave; None: as it does.
    """

    def __init__(self, answer: Answer, *, system: str | None = None) -> None:
        self._answer = answer
        self._system = system
        self._said: list[Message] = []

    def talk(self, greeting: str) -> int:
        """Ask and answer until Ctrl-D. Returns the exit code."""
        _line_editing()
        print(f"{greeting} /help says what else there is; Ctrl-D ends the chat.")
        while True:
            try:
                text = input("> ").strip()
            except EOFError:
                print()
                return 0
            except KeyboardInterrupt:
                print()
                continue
            if text.startswith("/"):
                self._command(text)
            elif text:
                self._turn(text)

    def say(self, text: str) -> str:
        """One question and its answer, which is printed as it comes. Raises LLMOSError."""
        self._said.append({"role": "user", "content": text})
        try:
            answer = shown(self._answer(self._messages()))
        except BaseException:
            self._said.pop()  # the next question does not follow one that has no answer
            raise
        self._said.append({"role": "assistant", "content": answer})
        return answer

    def _turn(self, text: str) -> None:
        begun = time.monotonic()
        try:
            self.say(text)
        except KeyboardInterrupt:
            print("\n(stopped)")
        except LLMOSError as error:
            print(f"\nError: {error.message}\n  {error.hint}", file=sys.stderr)
        else:
            if sys.stdout.isatty():
                print(f"\x1b[2m({time.monotonic() - begun:.1f} s)\x1b[0m")

    def _command(self, text: str) -> None:
        word, _, rest = text.partition(" ")
        if word == "/reset":
            self._said.clear()
            print("(forgotten)")
        elif word == "/system":
            self._system = rest.strip() or None
            self._said.clear()
            print("(begun anew)")
        elif word in {"/help", "/?"}:
            print(HELP)
        elif word in {"/bye", "/exit", "/quit"}:
            print("Ctrl-D ends the chat.")
        else:
            print(f"There is no command {word}.\n{HELP}")

    def _messages(self) -> list[Message]:
        system = [{"role": "system", "content": self._system}] if self._system else []
        return [*system, *self._said]


def shown(pieces: Iterator[str]) -> str:
    """Print an answer as it comes, and return it; as Markdown on a terminal, as it is elsewhere."""
    answer = ""
    if not sys.stdout.isatty():
        for piece in pieces:
            print(piece, end="", flush=True)
            answer += piece
        print()
        return answer
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown

    console = Console()
    # While it comes, as much as the screen holds; when it has ended or was stopped, all of it, once.
    with Live(console=console, refresh_per_second=12, vertical_overflow="ellipsis", transient=True) as live:
        try:
            for piece in pieces:
                answer += piece
                live.update(Markdown(answer))
        finally:
            live.update("")
            live.stop()
            console.print(Markdown(answer))
    return answer


def _line_editing() -> None:
    """Arrow keys and the lines before, where Python was built with it."""
    try:
        import readline
    except ImportError:
        return
    del readline
