"""Settings: sockets have short paths, wherever the home lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_os.settings import Settings


def test_a_deep_runtime_folder_is_not_used_for_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("d" * 90)))
    settings = Settings(home=tmp_path / "home")
    assert len(str(settings.replica_socket("att-0123456789"))) <= 107
    assert "d" * 90 not in str(settings.socket)


def test_a_short_runtime_folder_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    assert str(Settings(home=Path("/h")).socket).startswith("/run/user/0/llm-os-")


def test_homes_have_sockets_of_their_own() -> None:
    assert Settings(home=Path("/a")).socket != Settings(home=Path("/b")).socket


@pytest.mark.parametrize("collector", ["127.0.0.1:4318", "http://", "http://name:password@host", "http://a b", ""])
def test_a_collector_is_an_address_without_a_password(collector: str) -> None:
    with pytest.raises(ValueError, match="traces"):
        Settings(traces=collector)


@pytest.mark.parametrize(
    "collector", ["http://127.0.0.1:4318", "https://traces.example.org/otlp/", "http://[::1]:4318"]
)
def test_a_collector_may_have_a_path(collector: str) -> None:
    assert Settings(traces=collector).traces == collector
