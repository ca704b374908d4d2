"""The worker of `remote`: its key comes from a file that nobody else can read, and goes nowhere but to its server."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_os.errors import InvalidInputError
from llm_os.models.remote import Remote
from llm_os.workers.remote import RemoteBackend, read_key
from llm_os.workers.requests import ChatRequest
from llm_os.workers.upstream import Upstream


def key_file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_key(key_file(tmp_path, b"sk-1234\n")) == "sk-1234"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="read by others") as caught:
        read_key(key_file(tmp_path, b"sk-1234", mode))
    assert "sk-1234" not in str(caught.value)
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"a\nb", "ключ".encode(), b"k" * 20_000, b"a\0b"])
def test_a_file_that_holds_no_key_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no key"):
        read_key(key_file(tmp_path, content))


def test_what_is_no_file_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No such file"):
        read_key(tmp_path / "none")
    with pytest.raises(InvalidInputError, match="is no file"):
        read_key(tmp_path)
    with pytest.raises(InvalidInputError, match="no absolute path"):
        read_key(Path("key"))


def test_the_most_new_tokens_go_by_the_name_that_its_server_knows() -> None:
    upstream = Upstream("a", "https://a/v1")
    backend = RemoteBackend(upstream, Remote("https://a/v1", "m"), most=1, limit="max_completion_tokens")
    asked = backend.asked(ChatRequest(max_tokens=5), "/chat/completions")
    assert "max_tokens" not in asked
    assert asked["max_completion_tokens"] == 5
    assert backend.asked(ChatRequest(max_tokens=5), "/completions")["max_tokens"] == 5
