"""Batches of PyTorch run side by side, each on its share of the threads."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
torch = pytest.importorskip("torch")
from families import family  # noqa: E402 - it needs PyTorch

from llm_os.models.embedding import load_encoder  # noqa: E402
from llm_os.models.load import Classifier, load_classifier  # noqa: E402
from llm_os.spec.artifacts import ArtifactFacts  # noqa: E402
from llm_os.spec.attempts import AttemptSpec, Input, ServeCall  # noqa: E402
from llm_os.spec.base import Json  # noqa: E402
from llm_os.workers import torch as worker  # noqa: E402
from llm_os.workers.backend import Backend  # noqa: E402

TEXTS = ["good film", "a very very poor book was so bad", "so"]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def load(folder: Path, task: str, threads: int, **options: Json) -> Backend:
    model = Input(path=str(folder), facts=ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1))
    call = ServeCall(
        engine="torch", deployment="d", model=model, version="m@1", task=task, options=options, socket="unused"
    )
    return worker.load(call, AttemptSpec(attempt="a", owner="o", token=1, argv=(), env={}, threads=threads, cwd="/"))


async def test_two_batches_of_a_classifier_run_side_by_side_on_a_thread_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = family(tmp_path / "model", "bert", "AutoModelForSequenceClassification")
    alone = load_classifier(folder).predict(TEXTS)
    backend = load(folder, "text-classification", 2, dtype="fp32")
    await backend.begin()
    together, seen, scores = threading.Barrier(2), list[int](), Classifier.scores

    def both(self: Classifier, ids: list[list[int]]) -> list[list[float]]:
        together.wait(10)  # fails where there is one at a time
        seen.append(torch.get_num_threads())
        return scores(self, ids)

    monkeypatch.setattr(Classifier, "scores", both)
    found = await asyncio.gather(*(backend.classify([text]) for text in TEXTS[:2]))
    assert [one.scores[0] for one in found] == [pytest.approx(row, abs=1e-5) for row in alone[:2]]
    assert seen == [1, 1]
    await backend.end()


@pytest.mark.parametrize(("streams", "each"), [(1, 4), (3, 2), (4, 1), (None, 2)])
async def test_an_embedder_has_as_many_as_it_was_asked_for(tmp_path: Path, streams: int | None, each: int) -> None:
    folder = family(tmp_path / "model", "bert")
    alone = load_encoder(folder).predict(TEXTS)
    backend = load(folder, "feature-extraction", 4, dtype="fp32", streams=streams)
    await backend.begin()
    found = await asyncio.gather(*(backend.embed([text]) for text in TEXTS * 3))
    assert torch.get_num_threads() == each
    assert [one.vectors[0] for one in found] == [pytest.approx(row, abs=1e-5) for row in alone * 3]
    await backend.end()
