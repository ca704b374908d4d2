"""A worker that serves already compares itself again when it is asked to, and tells what came out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Compare, Control, Input, ServeCall
from llm_os.spec.parity import FILE, CheckText, Parity, Place, Reference
from llm_os.workers import recomparison
from llm_os.workers.backend import Piece
from llm_os.workers.fake import FakeBackend
from llm_os.workers.recomparison import again
from llm_os.workers.requests import ChatRequest

FACTS = ArtifactFacts(digest="sha256:" + "0" * 64, kind="report", size=1, meta={})
PLACES = tuple(Place(at=at, token=at, text=f"word{at}", margin=1.0) for at in range(4, 104))


def a_wish(folder: Path) -> Compare:
    reference = Reference(texts=(CheckText(ids=tuple(range(110)), places=PLACES),))
    (folder / FILE).write_text(reference.model_dump_json())
    return Compare(number=7, reference=Input(path=str(folder), facts=FACTS))


class Answering(FakeBackend):
    """Says what the reference says, but for every `wrong`-th place; or breaks."""

    wrong = 0
    breaks = False
    oddly = False
    asked = 0

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:  # type: ignore[override]
        self.asked += 1
        await asyncio.sleep(0)
        if self.oddly:
            raise TypeError("an engine's own")
        if self.breaks:
            raise UnavailableError("The engine broke.")
        assert isinstance(request.prompt, tuple)
        size = len(request.prompt)
        text = "other" if self.wrong and size % self.wrong == 0 else f"word{size}"
        yield Piece(text, size, 1, "length")


def backend(folder: Path) -> Answering:
    call = ServeCall(
        engine="fake",
        deployment="chat",
        model=Input(path=str(folder), facts=FACTS),
        version="chat@1",
        task="text-generation",
        options={},
        socket="/nowhere",
    )
    return Answering(call)


async def told(folder: Path, **faults: Any) -> list[Mapping[str, Any]]:
    asked, reports = backend(folder), list[Mapping[str, Any]]()
    for name, value in faults.items():
        setattr(asked, name, value)

    def write(kind: str, values: Mapping[str, Any]) -> None:
        assert kind == "parity"
        reports.append(values)

    await again(a_wish(folder), asked, write)
    assert reports[0] == {"number": 7}, "it has heard of it"
    assert reports[1]["number"] == 7
    return reports


async def test_who_agrees_has_no_complaints(tmp_path: Path) -> None:
    _, found = await told(tmp_path)
    parity = Parity.model_validate(found["parity"])
    assert (parity.everywhere.agreed, parity.agrees, found["differences"]) == (100, True, [])


async def test_who_says_something_else_is_told_with_limits_and_places(tmp_path: Path) -> None:
    _, found = await told(tmp_path, wrong=5)
    parity = Parity.model_validate(found["parity"])
    assert (parity.everywhere.agreed, parity.agrees) == (80, False)
    assert any("98% must" in one for one in parity.complaints)
    assert {(one[1], one[2]) for one in found["differences"]} <= {(f"word{at}", "other") for at in range(5, 104, 5)}
    assert len(found["differences"]) == 5


async def test_who_breaks_over_it_says_so(tmp_path: Path) -> None:
    _, found = await told(tmp_path, breaks=True)
    assert found["error"]["message"] == "The engine broke."


def test_a_wish_is_read_from_the_control_file_and_a_stop_is_none(tmp_path: Path) -> None:
    from llm_os.workers.recomparison import _wish

    path = tmp_path / "control.json"
    assert _wish(path) is None
    path.write_text(Control(stop=True).model_dump_json())
    assert _wish(path) is None
    wish = a_wish(tmp_path)
    path.write_text(Control(compare=wish).model_dump_json())
    assert _wish(path) == wish


async def test_what_an_engine_raises_of_its_own_is_told_too(tmp_path: Path) -> None:
    _, found = await told(tmp_path, oddly=True)
    assert "TypeError: an engine's own" in found["error"]["message"]


async def test_after_the_first_error_nothing_more_is_asked(tmp_path: Path) -> None:
    asked = backend(tmp_path)
    asked.breaks = True
    await again(a_wish(tmp_path), asked, lambda kind, values: None)
    before = asked.asked
    for _ in range(50):
        await asyncio.sleep(0)
    assert asked.asked == before < len(PLACES)


async def test_a_full_disk_does_not_end_the_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomparison, "LOOK_EVERY", 0.0)
    wish, reports = a_wish(tmp_path), list[Any]()
    heard = asyncio.Event()

    def write(kind: str, values: Mapping[str, Any]) -> None:
        heard.set()
        if values["number"] == 7:
            raise OSError(28, "No space left on device")
        reports.append(values)

    watching = asyncio.create_task(recomparison.watch(tmp_path, backend(tmp_path), write))
    for number in (7, 8):
        heard.clear()
        content = Control(compare=wish.model_copy(update={"number": number})).model_dump_json()
        (tmp_path / "beside").write_text(content)
        (tmp_path / "beside").rename(tmp_path / "control.json")
        await asyncio.wait_for(heard.wait(), 10)
    assert reports[0] == {"number": 8}
    watching.cancel()
