"""The example of an engine in a distribution of its own: found by its entry point, and it keeps the contract."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.errors import ConflictError, NotFoundError
from llm_os.testing.conformance.engine import CHAT, PURE_CHECKS, served_checks
from llm_os.testing.engine_bed import facts_of, started

EXAMPLE = Path(__file__).parents[2] / "examples" / "engine_plugin"


def installed(folder: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """What an installer leaves of a distribution."""
    notes = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in points.items()]
    (notes / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as if it were installed; it is not listed yet."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    installed(tmp_path, project["name"], project["entry-points"])
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLE), os.environ.get("PYTHONPATH", "")]))
    plugins.scan.cache_clear()
    plugins.load.cache_clear()
    yield tmp_path
    plugins.scan.cache_clear()
    plugins.load.cache_clear()


def test_a_distribution_that_nobody_listed_is_not_loaded(registry: Path) -> None:
    assert "echo" not in plugins.names("engine")


def test_one_that_is_listed_and_not_installed_is_named(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_OS_PLUGINS", "llm-os-echo, no-such-thing")
    with pytest.raises(NotFoundError, match="'no-such-thing', which is not installed"):
        plugins.names("engine")


def test_two_plugins_of_one_name_are_refused_by_both_their_homes(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(registry, "another", {"llm_os.engine": {"torch": "another.driver"}})
    monkeypatch.setenv("LLM_OS_PLUGINS", "another")
    with pytest.raises(ConflictError, match=r"'torch': .*torch\.py and the distribution another"):
        plugins.names("engine")


async def test_the_example_is_found_and_keeps_the_contract_of_engines(
    registry: Path, monkeypatch: pytest.MonkeyPatch, sample_model: Callable[[str], Path]
) -> None:
    monkeypatch.setenv("LLM_OS_PLUGINS", "llm-os-echo")
    assert "echo" in plugins.names("engine")
    engine, model = plugins.load("engine", "echo"), sample_model("smollm2")
    for pure in PURE_CHECKS:
        pure(engine, facts_of(model))
    async with started(engine, model) as served:
        long = {"messages": [{"role": "user", "content": "word " * 5000}]}
        status, body = await served.post(CHAT, long)
        assert (status, body["error"]["param"]) == (400, "messages")
        for check in served_checks(engine, "text-generation"):
            await check(served)
