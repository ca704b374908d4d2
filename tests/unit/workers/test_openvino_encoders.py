"""Graphs are kept where there is room for them, and are there without it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
from llm_os.workers.openvino_encoders import Graphs  # noqa: E402 - it needs both
from llm_os.workers.reading import streams_of  # noqa: E402

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


def model() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=50, num_labels=2, **sizes)).eval()


def said(of: Any) -> Any:
    with torch.inference_mode():
        return of(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def test_a_full_disk_keeps_no_graph_and_ends_no_start(tmp_path: Path) -> None:
    given = model()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # a file that grows further is refused, as on a full disk
    try:
        made = Graphs(given, "logits", tmp_path, "sha256:0", 1)
        plain, small = made.model("fp32"), made.model("int8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    torch.testing.assert_close(said(plain), said(given), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(said(small), said(given), rtol=0.1, atol=0.02)
    assert not list(tmp_path.iterdir()), "nothing half written stays"


def test_a_kept_graph_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    given = model()
    Graphs(given, "logits", tmp_path, "sha256:0", 1).model("fp32")
    (kept,) = tmp_path.iterdir()
    (kept / "model.xml").write_bytes(b"")
    again = Graphs(given, "logits", tmp_path, "sha256:0", 1).model("fp32")
    torch.testing.assert_close(said(again), said(given), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "threads", "longest", "streams"),
    [
        *[(None, 1, 512, 1), (None, 2, 512, 2), (None, 3, 512, 2), (None, 4, 512, 2), (None, 9, 512, 4)],
        *[(1, 8, 512, 1), (64, 8, 512, 8), (None, 16, 2048, 2), (8, 16, 8192, 1)],
    ],
)
def test_batches_side_by_side_by_threads_and_room(asked: int | None, threads: int, longest: int, streams: int) -> None:
    assert streams_of(asked, threads, longest) == streams
