"""A worker that serves already compares itself again when it is asked to, and tells what came out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from llm_os.errors import UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.attempts import Compare, Control, Input, ServeCall
from llm_os.spec.parity import FILE, CheckText, Parity, Place, Reference
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

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Piece, None]:  # type: ignore[override]
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
