"""Exceptions as answers."""

import logging

import pytest

from llm_os.errors import (
    AuthenticationError,
    LLMOSError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    by_code,
)
from llm_os.server import envelope


def test_openai_clients_get_message_type_code_param_and_our_hint() -> None:
    error = NotFoundError("no 'x'", hint="Known: y.", details={"param": "model"})
    assert envelope.openai_body(error) == {
        "error": {
            "message": "no 'x'",
            "type": "not_found_error",
            "code": "not_found",
            "param": "model",
            "hint": "Known: y.",
        }
    }


@pytest.mark.parametrize("cls", sorted(by_code().values(), key=lambda cls: cls.code))
def test_every_error_has_a_status_and_both_shapes(cls: type[LLMOSError]) -> None:
    error = cls("what happened")
    assert 400 <= error.status < 600
    assert envelope.management_body(error)["error"]["code"] == cls.code
    assert envelope.openai_body(error)["error"]["type"].endswith("error")


def test_headers_say_when_to_come_back_and_how_to_sign_in() -> None:
    assert envelope.headers(OverloadedError("full", details={"retry_after": 7})) == {"retry-after": "7"}
    assert envelope.headers(UnavailableError("not yet")) == {"retry-after": "1"}
    assert envelope.headers(AuthenticationError("who?")) == {"www-authenticate": "Bearer"}
    assert envelope.headers(NotFoundError("no")) == {}


def test_validation_problems_name_each_field_once() -> None:
    problems = [
        {"loc": ("body", "spec", "epoch"), "msg": "Extra inputs are not permitted", "type": "extra_forbidden"},
        {"loc": ("query", "limit"), "msg": "too small", "type": "greater_than_equal"},
        {"loc": ("query", "limit"), "msg": "another", "type": "x"},
    ]
    error = envelope.from_validation(problems)
    assert error.details["fields"] == {"spec.epoch": "Extra inputs are not permitted", "limit": "too small"}
    assert "'spec.epoch'" in error.message
    assert "Unknown fields" in error.hint


def test_a_defect_is_logged_whole_and_told_briefly(caplog: pytest.LogCaptureFixture) -> None:
    error = envelope.from_unexpected(RuntimeError("inside"), logging.getLogger("x"), "GET /y", "/home/logs/z.log")
    assert "inside" not in str(error)
    assert "/home/logs/z.log" in str(error)
    assert "inside" in caplog.text
