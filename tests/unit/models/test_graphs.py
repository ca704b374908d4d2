"""A graph of OpenVINO says what the model in PyTorch says, or is refused."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from families import family

from llm_os.errors import UnsupportedModelError
from llm_os.models.embedding import load_encoder
from llm_os.models.load import load_classifier, load_transformer

numpy = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("openvino")
from llm_os.models import graphs  # noqa: E402 - it needs both

TEXTS = ["good film", "a very very poor book was so bad", "so"]


def test_the_graph_of_a_classifier_gives_its_scores_also_from_a_file_and_in_8_bits(tmp_path: Path) -> None:
    classifier = load_classifier(family(tmp_path / "model", "bert", "AutoModelForSequenceClassification"))
    model, expected = classifier.model, classifier.predict(TEXTS)
    made = graphs.converted(model, "logits")
    (tmp_path / "graph").mkdir()
    graphs.save(made, tmp_path / "graph")
    graph = graphs.load(tmp_path / "graph")
    classifier.model = graphs.run_by(model, graph, "logits", "fp32", 1)
    assert all(x == pytest.approx(y, abs=1e-5) for x, y in zip(classifier.predict(TEXTS), expected, strict=True))
    assert graphs.compressed(graph) == 2 * 6 + 2, "the products of two layers, of the pooler and of the head"
    classifier.model = graphs.run_by(model, graph, "logits", "int8", 1)
    got = classifier.predict(TEXTS)
    assert all(x == pytest.approx(y, abs=0.01) for x, y in zip(got, expected, strict=True))
    assert got != expected


def test_the_graph_of_an_encoder_gives_its_vectors(tmp_path: Path) -> None:
    encoder = load_encoder(family(tmp_path / "model", "distilbert"))
    model, expected = encoder.model, encoder.predict(TEXTS)
    made = graphs.converted(model, "last_hidden_state")
    encoder.model = graphs.run_by(model, made, "last_hidden_state", "fp32", 1)
    assert all(x == pytest.approx(y, abs=1e-5) for x, y in zip(encoder.predict(TEXTS), expected, strict=True))


def test_several_threads_ask_one_graph_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    encoder = load_encoder(family(tmp_path / "model", "distilbert"))
    expected = encoder.predict(TEXTS)
    made = graphs.converted(encoder.model, "last_hidden_state")
    encoder.model = graphs.run_by(encoder.model, made, "last_hidden_state", "fp32", 2, 2)
    ids = encoder.read(TEXTS)
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda n: encoder.vectors([ids[n % 3]])[0], range(60)))
    assert all(x == pytest.approx(expected[n % 3], abs=1e-5) for n, x in enumerate(got))


def test_each_lane_compiles_for_itself_and_more_threads_share_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, str]] = []

    class Compiled:
        def create_infer_request(self) -> Compiled:
            users.append(self)
            return self

        def infer(self, given: object, share_inputs: bool) -> dict[int, object]:
            together.wait(10)
            return {0: numpy.zeros((1, 2), numpy.float32)}

    def compile_(graph: object, precision: str, threads: int) -> Compiled:
        made.append((threads, threading.current_thread().name))
        return Compiled()

    monkeypatch.setattr(graphs, "_compile", compile_)
    users: list[Compiled] = []
    model = torch.nn.Module()
    model.config = SimpleNamespace(model_type="bert")  # type: ignore[assignment]
    graph = graphs.run_by(model, object(), "logits", "fp32", 5, 2)
    one = torch.ones((1, 1), dtype=torch.long)
    assert [of for of, _ in made] == [3], "the first, so that nobody takes compiling for running"
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4, thread_name_prefix="lane") as threads:
        for _ in range(2):  # the second time each has its own already
            list(threads.map(lambda _: graph(input_ids=one, attention_mask=one), range(4)))
    assert [of for of, _ in made] == [3, 3], "each on its share of the threads, none idle"
    assert made[1][1].startswith("lane")
    assert sorted(users.count(one) for one in set(users)) == [2, 2]


def test_many_streams_share_one_compiled_graph_and_its_weights(tmp_path: Path) -> None:
    encoder = load_encoder(family(tmp_path / "model", "distilbert"))
    graph = graphs.run_by(
        encoder.model, graphs.converted(encoder.model, "last_hidden_state"), "last_hidden_state", "fp32", 3, 3
    )
    expected, encoder.model = encoder.predict(TEXTS), graph
    ids = encoder.read(TEXTS)
    with ThreadPoolExecutor(3) as threads:
        got = list(threads.map(lambda n: encoder.vectors([ids[n % 3]])[0], range(30)))
    assert all(x == pytest.approx(expected[n % 3], abs=1e-5) for n, x in enumerate(got))
    assert len(graph._compiled) == 1


def test_a_table_of_n_grams_stays_beside_the_graph(tmp_path: Path) -> None:
    from llm_os.models.wide import WideConfig, WideForSequenceClassification

    plain = load_transformer(
        family(tmp_path / "model", "bert", "AutoModelForSequenceClassification"), "text-classification"
    ).model
    config = WideConfig(plain.config.to_dict(), 1, 1, pad_token_id=0, num_labels=2, vocab_size=plain.config.vocab_size)
    wide = WideForSequenceClassification(config).eval()
    wide.keys[0], wide.idf[0] = 6, 1.0
    wide.table.data[0, 1] = 3.0
    made = graphs.run_by(wide, graphs.converted(wide, "logits"), "logits", "fp32", 1)
    ids, mask = torch.tensor([[2, 5, 3], [2, 6, 3]]), torch.ones((2, 3), dtype=torch.long)
    with torch.inference_mode():
        expected, got = wide(input_ids=ids, attention_mask=mask).logits, made(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(got, expected, atol=1e-5)
    assert expected[0, 1] - expected[1, 1] > 2, "the text with the n-gram was changed by the table"
    assert isinstance(wide.body, type(plain)), "the given model is as it was"


class Strange(torch.nn.Module):
    """Adds the number of texts that it was traced with."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.config = config
        self.inner = torch.nn.Embedding(50, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        count = float(int(input_ids.shape[0]) * 10)
        return SimpleNamespace(logits=self.inner(input_ids).mean(1) + attention_mask.sum() * 0 + count)


class Listing(Strange):
    """Does what no graph can."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        rows = torch.nn.utils.rnn.pack_padded_sequence(self.inner(input_ids), attention_mask.sum(1), batch_first=True)
        return SimpleNamespace(logits=torch.fft.fft(rows.data).real)


@pytest.mark.parametrize("kind", [Strange, Listing])
def test_a_model_that_becomes_no_true_graph_is_refused(kind: type[Strange]) -> None:
    config = SimpleNamespace(pad_token_id=0, get_text_config=lambda: SimpleNamespace(vocab_size=50))
    with pytest.raises(UnsupportedModelError, match=f"cannot run this {kind.__name__}") as caught:
        graphs.converted(kind(config), "logits")
    assert "torch" in caught.value.hint


def test_rounded_weights_are_at_most_half_a_step_away() -> None:
    weights = numpy.random.default_rng(0).normal(size=(4, 9)).astype(numpy.float32)
    weights[2] = 0
    whole, scale = graphs.rounded(weights)
    assert whole.dtype == numpy.int8
    assert scale.shape == (4, 1)
    assert (numpy.abs(whole * scale - weights) <= scale / 2 + 1e-7).all()


def test_openvino_tells_nobody_that_it_is_used() -> None:
    told = "import sys, llm_os.models.graphs; print([n for n in sys.modules if n.startswith('openvino_telemetry.')])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
