"""What engine drivers promise without starting anything: needs, programs and where they are there."""

from __future__ import annotations

import pytest

from llm_os import plugins
from llm_os.drivers.device import Available, Unavailable
from llm_os.drivers.engines.fake import FakeOptions
from llm_os.drivers.engines.openvino import OVERHEAD, OpenVinoOptions
from llm_os.drivers.engines.torch import TorchOptions
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity

GRANTED = Capacity(cpus=2, memory=8 * 2**30)
SMOLLM = {"parameters": 134515008, "context_length": 8192, "hidden_size": 576, "layers": 30, "heads": 9, "kv_heads": 3}


def facts(size: int, **meta: int) -> ArtifactFacts:
    return ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=size, meta=meta)


def test_the_cache_of_keys_and_values_is_part_of_what_openvino_needs() -> None:
    engine, model = plugins.load("engine", "openvino"), facts(92_000_000, **SMOLLM)
    small = engine.footprint(OpenVinoOptions(cache_tokens=8192), model, GRANTED).memory
    large = engine.footprint(OpenVinoOptions(cache_tokens=8192 + 1000), model, GRANTED).memory
    assert large - small == pytest.approx(1000 * 2 * 30 * 192 * 1.125)


def test_the_cache_holds_one_context_at_least() -> None:
    engine, model = plugins.load("engine", "openvino"), facts(92_000_000, **SMOLLM)
    least = engine.footprint(OpenVinoOptions(cache_tokens=128), model, GRANTED)
    assert least == engine.footprint(OpenVinoOptions(cache_tokens=8192), model, GRANTED)
    short = engine.footprint(OpenVinoOptions(cache_tokens=128, context=512), model, GRANTED)
    assert short.memory < least.memory


def test_openvino_needs_the_model_twice_when_nothing_is_known_of_it() -> None:
    engine = plugins.load("engine", "openvino")
    assert engine.footprint(OpenVinoOptions(), facts(10**9), GRANTED).memory == 2 * 10**9 + OVERHEAD


def test_torch_counts_parameters_in_fp32_whatever_the_file_holds() -> None:
    engine = plugins.load("engine", "torch")
    half = engine.footprint(TorchOptions(), facts(2 * 10**8, parameters=10**8), GRANTED).memory
    full = engine.footprint(TorchOptions(), facts(4 * 10**8, parameters=10**8), GRANTED).memory
    assert half == full
    assert half > 4 * 10**8


def test_an_encoder_decoder_needs_room_for_what_it_read_and_writes() -> None:
    engine = plugins.load("engine", "torch")
    sizes = {"parameters": 10**6, "hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 2}
    model = ArtifactFacts(
        digest="sha256:" + "0" * 64, kind="model", size=1, meta={**sizes, "task": "text2text-generation"}
    )
    few, many = (engine.footprint(TorchOptions(max_batch=most), model, GRANTED).memory for most in (1, 33))
    assert many - few == 32 * 2 * 512 * 2 * 2 * 64 * 4


def test_the_fake_engine_is_there_in_tests_only_and_never_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = plugins.load("engine", "fake")
    monkeypatch.delenv("LLM_OS_TESTING", raising=False)
    assert isinstance(fake.probe(), Unavailable)
    monkeypatch.setenv("LLM_OS_TESTING", "1")
    assert isinstance(fake.probe(), Available)
    others = [plugins.load("engine", name) for name in plugins.names("engine") if name != "fake"]
    assert all(fake.preference < other.preference for other in others)


def test_the_fake_engine_claims_what_it_is_told() -> None:
    fake = plugins.load("engine", "fake")
    assert fake.footprint(FakeOptions(memory=5 * 2**30), facts(1), GRANTED).memory == 5 * 2**30


def test_threads_of_torch_do_not_spin_beside_training() -> None:
    engine, model = plugins.load("engine", "torch"), facts(1)
    process = engine.process(TorchOptions(), model, engine.footprint(TorchOptions(), model, GRANTED))
    assert process.env["OMP_WAIT_POLICY"] == "PASSIVE"


def test_only_engines_with_a_prefix_cache_say_that_prompts_share_what_was_read() -> None:
    said = {name: plugins.load("engine", name).shares_prefixes for name in ("openvino", "torch")}
    assert said == {"openvino": True, "torch": False}
