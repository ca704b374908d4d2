"""A model on another's server: which addresses are taken, and what is kept of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_os.errors import InvalidInputError, ModelError, UnsupportedModelError
from llm_os.models import remote, sources
from llm_os.models.formats import inspect
from llm_os.models.load import load_chat
from llm_os.server.management.paths import name_a_path


def test_an_address_and_a_name_become_a_model_folder(tmp_path: Path) -> None:
    facts = sources.fetch("remote:https://api.example.com/v1/#org/big?context=32768", tmp_path)
    assert (facts["format"], facts["task"], facts["context_length"]) == ("remote", "text-generation", 32768)
    assert facts["source"] == "remote:https://api.example.com/v1#org/big"
    assert remote.read(tmp_path) == remote.Remote("https://api.example.com/v1", "org/big", 32768)
    assert inspect(tmp_path)["model"] == "org/big"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://user:hunter2@api.example.com/v1#big", "a password"),
        ("https://api.example.com/v1?key=hunter2#big", "a query"),
        ("http://api.example.com/v1#big", "not encrypted"),
        ("http://127.0.0.1.example.com/v1#big", "not encrypted"),
        ("ftp://api.example.com/v1#big", "no http address"),
        ("https:///v1#big", "no http address"),
        ("https://api.example.com:port/v1#big", "no address"),
        ("https://api.example.com/v1", "names no model"),
        ("https://api.example.com/v 1#big", "no address"),
        ("https://api.example.com/v1#big?context=many", "no number of tokens"),
    ],
)
def test_what_is_no_safe_address_is_refused_without_its_secret(address: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says) as caught:
        remote.parse(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_server_of_this_machine_needs_no_encryption(host: str) -> None:
    assert remote.parse(f"http://{host}/v1#m").url == f"http://{host}/v1"


@pytest.mark.parametrize("data", [[], {"url": "https://a/v1"}, {"url": "https://a/v1", "model": "m", "key": "s"}, 3])
def test_a_damaged_file_is_a_model_error(data: object, tmp_path: Path) -> None:
    (tmp_path / remote.FILE).write_text(json.dumps(data))
    with pytest.raises(ModelError, match=r"remote\.json"):
        inspect(tmp_path)


def test_it_cannot_be_loaded_like_weights(tmp_path: Path) -> None:
    sources.fetch("remote:https://api.example.com/v1#big", tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"are not here: https://api\.example\.com has them"):
        load_chat(tmp_path)


def test_a_key_file_is_a_path_and_so_taken_over_the_socket_only() -> None:
    assert name_a_path({"key_file": "/home/me/.ssh/id_ed25519"})
    assert not name_a_path({"key_file": None, "timeout": 3})
