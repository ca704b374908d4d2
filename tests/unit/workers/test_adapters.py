"""What a replica does with its adapters: those of its start, those that `control.json` says later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import AdapterInput, Control, Input, ServeCall
from llm_os.spec.base import Json
from llm_os.workers import adapters
from llm_os.workers.adapters import Keeper
from llm_os.workers.backend import Backend


class Recording(Backend):
    """Holds names and versions; what is called `bad` it cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    async def begin(self) -> None: ...

    async def end(self) -> None: ...

    async def take_adapter(self, adapter: AdapterInput) -> None:
        self.calls.append(f"take {adapter.name} {adapter.version}")
        if adapter.name == "bad":
            raise UnavailableError("It is bad.", hint="Send another one.")
        if adapter.name == "odd":
            raise RuntimeError("an engine's own")
        self.adapters[adapter.name] = adapter.version

    async def drop_adapter(self, name: str) -> None:
        self.calls.append(f"drop {name}")
        if name == "stuck":
            raise RuntimeError("an engine's own")
        await super().drop_adapter(name)


def adapter(name: str, version: str = "m@1") -> AdapterInput:
    return AdapterInput(name=name, version=version, path="/a")


def a_call(*given: AdapterInput) -> ServeCall:
    model = Input(path="/m", facts=ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1))
    return ServeCall(
        engine="e", deployment="chat", model=model, version="b@1", task="t", options={}, socket="/s", adapters=given
    )


class Kept:
    def __init__(self, folder: Path, *given: AdapterInput) -> None:
        self.folder, self.backend = folder, Recording()
        self.told: list[tuple[str, Mapping[str, Json]]] = []
        self.keeper = Keeper(
            a_call(*given), self.backend, folder, lambda kind, values: self.told.append((kind, values))
        )

    async def control(self, *given: AdapterInput | None) -> None:
        """Say what it shall hold; None: nothing of adapters. Then one look."""
        said = None if given == (None,) else tuple(one for one in given if one is not None)
        beside = self.folder / ".beside"
        beside.write_text(Control(adapters=said).model_dump_json())
        beside.replace(self.folder / "control.json")
        if self.keeper._look():
            await self.keeper._change()


async def test_it_begins_with_those_of_its_start_and_says_so_only_where_there_are_any(tmp_path: Path) -> None:
    kept = Kept(tmp_path, adapter("mood"), adapter("bad"))
    told: Any = await kept.keeper.begin()
    assert told == {"adapters": {"mood": "m@1"}, "failed": {"bad": "It is bad. Send another one."}}
    assert await Kept(tmp_path / "other").keeper.begin() == {}


async def test_what_came_while_it_started_goes_before_what_it_was_started_with(tmp_path: Path) -> None:
    kept = Kept(tmp_path, adapter("mood"))
    (tmp_path / "control.json").write_text(Control(adapters=(adapter("other"),)).model_dump_json())
    assert (await kept.keeper.begin())["adapters"] == {"other": "m@1"}
    assert kept.backend.calls == ["take other m@1"]


async def test_a_new_one_is_taken_before_an_old_one_goes_and_what_stays_is_left_alone(tmp_path: Path) -> None:
    kept = Kept(tmp_path, adapter("stays"), adapter("goes"))
    await kept.keeper.begin()
    kept.backend.calls.clear()
    await kept.control(adapter("stays"), adapter("new"))
    assert kept.backend.calls == ["take new m@1", "drop goes"]
    await kept.control(adapter("stays", "m@2"), adapter("new"))
    assert kept.backend.calls[2:] == ["take stays m@2"]
    await kept.control(None)
    assert kept.backend.adapters == {"stays": "m@2", "new": "m@1"}, "a word to stop says nothing of adapters"


async def test_one_that_cannot_be_taken_is_tried_again_only_where_it_is_another_one(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keeper.begin()
    await kept.control(adapter("bad"), adapter("odd"), adapter("good"))
    assert kept.keeper._told() == {
        "adapters": {"good": "m@1"},
        "failed": {"bad": "It is bad. Send another one.", "odd": "RuntimeError: an engine's own"},
    }
    kept.backend.calls.clear()
    await kept.control(adapter("bad"), adapter("good"))
    assert kept.backend.calls == []
    assert kept.keeper._told()["failed"] == {"bad": "It is bad. Send another one."}
    await kept.control(adapter("bad", "m@2"))
    assert kept.backend.calls == ["take bad m@2", "drop good"]


async def test_one_that_cannot_be_let_go_does_not_end_the_following(tmp_path: Path) -> None:
    kept = Kept(tmp_path, adapter("stuck"), adapter("goes"))
    await kept.keeper.begin()
    kept.backend.calls.clear()
    await kept.control(adapter("new"))
    assert kept.backend.calls == ["take new m@1", "drop stuck", "drop goes"]
    assert kept.keeper._told()["adapters"] == {"new": "m@1"}


async def test_what_is_there_is_told_again_until_the_disk_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "LOOK_EVERY", 0.0)
    told: list[Mapping[str, Json]] = []
    full = [True, True, False]

    def tell(kind: str, values: Mapping[str, Json]) -> None:
        if full.pop(0):
            raise OSError("no space left on device")
        told.append(values)
        raise KeyboardInterrupt  # the end of this test

    (tmp_path / "control.json").write_text(Control(adapters=(adapter("mood"),)).model_dump_json())
    keeper = Keeper(a_call(), Recording(), tmp_path, tell)
    with pytest.raises(KeyboardInterrupt):
        await keeper.run()
    assert told == [{"adapters": {"mood": "m@1"}, "failed": {}}]
