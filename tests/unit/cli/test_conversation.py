"""A chat in the terminal, with a scripted person and a scripted model."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from llm_os.cli.conversation import Conversation, Message, shown
from llm_os.errors import UnavailableError


class Model:
    """Answers with what it is given; an exception is raised after the first word."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[list[Message]] = []

    def __call__(self, messages: Sequence[Message]) -> Iterator[str]:
        self.asked.append(list(messages))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            yield "half "
            raise answer
        for word in answer.split():
            yield word + " "


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    given: list[Any] = [*lines, EOFError]

    def read(_: str) -> str:
        line = given.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)


def roles(messages: list[Message]) -> list[str]:
    return [f"{one['role'][0]}:{one['content'].strip()}" for one in messages]


def test_what_was_said_goes_with_the_next_question(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model("Hello you.", "Still here.", "Anew.", "Brief.")
    typed(monkeypatch, "hi", "", "and now", "/reset", "who", "/system Be brief.", "why")
    assert Conversation(model, system="Be kind.").talk("chat serves m@1.") == 0
    assert [roles(asked) for asked in model.asked] == [
        ["s:Be kind.", "u:hi"],
        ["s:Be kind.", "u:hi", "a:Hello you.", "u:and now"],
        ["s:Be kind.", "u:who"],
        ["s:Be brief.", "u:why"],
    ]
    out = capsys.readouterr().out
    assert out.startswith("chat serves m@1. /help")
    assert "Hello you. \n" in out


def test_an_answer_that_is_stopped_or_fails_is_not_part_of_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model(KeyboardInterrupt(), UnavailableError("The stream broke.", hint="Ask again."), "Fine.")
    typed(monkeypatch, "one", KeyboardInterrupt, "two", "three")
    assert Conversation(model).talk("m@1.") == 0
    assert roles(model.asked[-1]) == ["u:three"]
    shown_, errors = capsys.readouterr()
    assert "(stopped)" in shown_
    assert "The stream broke." in errors
    assert "Ask again." in errors


def test_a_command_that_is_none_shows_those_that_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "/forget", "/bye")
    Conversation(Model()).talk("m@1.")
    out = capsys.readouterr().out
    assert "no command /forget" in out
    assert "/reset" in out


def test_a_terminal_gets_markdown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert shown(iter(["# Title\n", "- one\n", "- two\n"])) == "# Title\n- one\n- two\n"
    out = capsys.readouterr().out
    assert "Title" in out
    assert "•" in out
    assert "one" in out
    assert "# Title" not in out
