"""What engine drivers promise without starting anything: needs, programs and where they are there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_os import plugins, programs
from llm_os._version import __version__
from llm_os.drivers.device import Available, Unavailable
from llm_os.drivers.engines.fake import FakeOptions
from llm_os.drivers.engines.llamacpp import LlamaCppOptions
from llm_os.drivers.engines.openvino import OVERHEAD, OpenVinoOptions
from llm_os.drivers.engines.torch import TorchOptions
from llm_os.errors import NotFoundError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.testing import openai_server

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


def test_encoders_are_served_by_torch_where_nobody_measured_that_their_graphs_are_faster() -> None:
    graphs, torch = plugins.load("engine", "openvino_encoders"), plugins.load("engine", "torch")
    assert set(graphs.tasks) < set(torch.tasks)
    assert graphs.formats == torch.formats
    assert graphs.preference < torch.preference
    assert graphs.compared, "it is compared with the reference before it serves"
    model = facts(4 * 10**8, parameters=10**8)
    assert graphs.footprint(graphs.Options(), model, GRANTED).memory > 2 * 4 * 10**8, "in PyTorch and in the graph"


def test_torch_counts_parameters_in_fp32_whatever_the_file_holds() -> None:
    engine = plugins.load("engine", "torch")
    half = engine.footprint(TorchOptions(), facts(2 * 10**8, parameters=10**8), GRANTED).memory
    full = engine.footprint(TorchOptions(), facts(4 * 10**8, parameters=10**8), GRANTED).memory
    assert half == full
    assert half > 4 * 10**8


def test_torch_sets_room_aside_for_adapters_of_chat_models_only() -> None:
    engine = plugins.load("engine", "torch")
    chat = ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=1, meta={**SMOLLM, "task": "text-generation"})
    needs = [engine.footprint(TorchOptions(max_adapters=n), chat, GRANTED).memory for n in (0, 1, 2)]
    one = 24 * 16 * 576 * 30 * 4
    assert [more - needs[0] for more in needs] == [0, 3 * one, 5 * one], "itself, in a batch, and one that replaces it"
    thin = engine.footprint(TorchOptions(max_adapters=2, max_adapter_rank=8), chat, GRANTED).memory
    assert 2 * (thin - needs[0]) == needs[2] - needs[0]
    # All linear layers of SmolLM2: seven a layer, with 9 heads, 3 of keys and values, and 1536 inside.
    really = 16 * 30 * (2 * (576 + 576) + 2 * (576 + 192) + 3 * (576 + 1536)) * 4
    assert really < one < 1.5 * really
    room = engine.adapter_room(TorchOptions(max_adapters=3, max_adapter_rank=8), "text-generation")
    assert room is not None
    assert (room.count, room.rank) == (3, 8)
    assert {*room.options} <= {*TorchOptions.model_fields}
    assert engine.adapter_room(TorchOptions(), "text-classification") is None


def test_engines_that_hold_adapters_say_so_by_options_that_they_have() -> None:
    found = {}
    for name in plugins.names("engine"):
        engine = plugins.load("engine", name)
        if "text-generation" not in engine.tasks:
            continue
        room = engine.adapter_room(engine.Options.model_construct(**_defaults(engine)), "text-generation")
        found[name] = room is not None
        assert found[name] is ("adapters_are_hot" not in engine.gaps)
        assert room is None or {*room.options} <= {*engine.Options.model_fields, "max_adapter_rank"}
    assert (found["torch"], found["vllm"], found["openvino"], found["llamacpp"]) == (True, True, False, False)


def _defaults(engine: Any) -> dict[str, Any]:
    return {name: field.default for name, field in engine.Options.model_fields.items() if not field.is_required()}


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


def test_llamacpp_needs_a_whole_context_for_each_request_at_once() -> None:
    engine, model = plugins.load("engine", "llamacpp"), facts(92_000_000, **SMOLLM)
    four, five = (
        engine.footprint(engine.Options(context=1024, parallel=number), model, GRANTED).memory for number in (4, 5)
    )
    assert five - four == 1024 * 2 * 30 * 192 * 2
    half = engine.footprint(engine.Options(context=1024, parallel=4, cache_type="q8_0"), model, GRANTED).memory
    assert half < four
    more = engine.footprint(engine.Options(context=1024, parallel=4, prompt_cache="1GiB"), model, GRANTED).memory
    assert more - four == 2**30
    longest = engine.footprint(engine.Options(context=2**20), model, GRANTED)
    assert longest == engine.footprint(engine.Options(context=8192), model, GRANTED), "no longer than it was made for"


def test_openvino_goes_before_llamacpp_and_vllm_is_never_taken_unasked() -> None:
    rank = {name: plugins.load("engine", name).preference for name in plugins.names("engine")}
    assert rank["openvino"] > rank["llamacpp"]
    assert rank["torch"] > rank["vllm"]


def test_vllm_asks_for_whole_gpus_and_its_cpu_build_for_a_cache() -> None:
    engine, model = plugins.load("engine", "vllm"), facts(10**9)
    two = engine.footprint(engine.Options(gpus=2), model, GRANTED)
    assert (two.accelerators, two.accelerator_kinds) == (2, ("nvidia",))
    none = engine.footprint(engine.Options(gpus=0, cache_memory="2GiB"), model, GRANTED)
    assert (none.accelerators, none.accelerator_kinds) == (0, ())
    less = engine.footprint(engine.Options(gpus=0, cache_memory="1GiB"), model, GRANTED)
    assert none.memory - less.memory == 2**30


def test_a_program_is_found_in_an_environment_of_the_home_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    engine = plugins.load("engine", "vllm")
    assert isinstance(engine.probe(), Unavailable)
    place = tmp_path / "environments" / "gpu"
    program = openai_server.program(place / "bin" / "vllm")
    distribution(place / "lib" / "python3.12" / "site-packages", "vllm", "0.30.0")
    assert engine.probe() == Available(version="0.30.0", detail="vllm from the environment gpu")
    found = programs.find("vllm", engine="vllm", environment="gpu")
    assert found is not None
    assert found.path == program
    with pytest.raises(NotFoundError, match=r"no environment 'gpus'\. Did you mean 'gpu'"):
        programs.find("vllm", engine="vllm", environment="gpus")


def test_a_key_may_be_named_by_its_file_only() -> None:
    engine = plugins.load("engine", "remote")
    with pytest.raises(ValueError, match="absolute path of a file, not the key itself"):
        engine.Options(key_file="sk-secret")
    assert engine.Options(key_file="/etc/key").key_file == "/etc/key"


def distribution(site: Path, name: str, version: str) -> None:
    notes = site / f"{name.replace('-', '_')}-{version}.dist-info"
    notes.mkdir(parents=True)
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_worker_runs_in_the_environment_that_has_its_engines_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    engine = plugins.load("engine", "openvino")
    process = engine.process(OpenVinoOptions(), facts(1), engine.footprint(OpenVinoOptions(), facts(1), GRANTED))
    assert programs.interpreter(process.environment) == sys.executable
    place = tmp_path / "environments" / "openvino"
    python = openai_server.program(place / "bin" / "python")
    assert programs.interpreter(process.environment) == str(python)
    assert programs.interpreter("default") == sys.executable

    site = place / "lib" / "python3.12" / "site-packages"
    site.mkdir(parents=True)
    assert engine.probe().reason == "The package openvino-genai is not installed in the environment openvino."
    distribution(site, "openvino-genai", "2026.4.0")
    assert engine.probe().reason == "The package llm-os is not installed in the environment openvino."
    distribution(site, "llm-os", "0.0.1")
    assert engine.probe().reason == f"LLM OS 0.0.1 is in the environment openvino, and {__version__} here."
    (site / "llm_os-0.0.1.dist-info" / "METADATA").write_text(f"Name: llm-os\nVersion: {__version__}\n")
    assert engine.probe() == Available(version="2026.4.0")


def test_only_engines_with_a_prefix_cache_say_that_prompts_share_what_was_read() -> None:
    said = {name: plugins.load("engine", name).shares_prefixes for name in ("openvino", "torch")}
    assert said == {"openvino": True, "torch": False}


def test_another_build_of_a_program_is_another_even_under_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compared with PyTorch was that one: the key of a comparison holds its digest."""
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    engine = plugins.load("engine", "llamacpp")
    known = engine.identity(engine.Options())
    program = openai_server.program(tmp_path / "path" / "llama-server")
    first = engine.identity(engine.Options())
    assert first not in ("", known)
    assert engine.identity(engine.Options(context=512)) == first, "options have a place of their own in the key"
    program.write_text(program.read_text() + "# built anew\n")
    second = engine.identity(engine.Options())
    assert second != first
    (program.parent / "libggml.so").write_bytes(b"1")
    assert engine.identity(engine.Options()) not in (first, second), "its libraries are part of it"

    other = tmp_path / "environments" / "old"
    openai_server.program(other / "bin" / "llama-server", silent=True)
    assert engine.identity(engine.Options(environment="old")) != engine.identity(engine.Options())


def test_another_version_of_an_environments_packages_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    engine, place = plugins.load("engine", "vllm"), tmp_path / "environments" / "gpu"
    openai_server.program(place / "bin" / "vllm")
    site = place / "lib" / "python3.12" / "site-packages"
    distribution(site, "vllm", "0.30.0")
    first = engine.identity(engine.Options(environment="gpu"))
    assert first.startswith("vllm 0.30.0, ")
    distribution(site, "torch", "2.13.0")
    assert engine.identity(engine.Options(environment="gpu")).startswith("vllm 0.30.0, torch 2.13.0, ")


def smollm(**meta: str) -> ArtifactFacts:
    known = {"format": "gguf", "task": "text-generation", "precision": "int4", **SMOLLM, **meta}
    return ArtifactFacts(digest="sha256:" + "0" * 64, kind="model", size=92_000_000, meta=known)


def test_llamacpp_is_tried_with_the_file_as_it_is_and_in_8_bits() -> None:
    engine = plugins.load("engine", "llamacpp")
    found = [options.model_dump() for options in engine.candidates(smollm(), GRANTED)]
    assert [options["precision"] for options in found] == ["file", "int8"]
    assert [o.precision for o in engine.candidates(smollm(precision="mixed"), GRANTED)] == ["file"]
    assert [o.precision for o in engine.candidates(smollm(), GRANTED, "int8")] == ["int8"]
    assert [o.precision for o in engine.candidates(smollm(), GRANTED, "int4")] == ["file"]
    assert engine.candidates(smollm(), GRANTED, "bf16") == ()


def test_8_bits_need_more_memory_than_the_files_4() -> None:
    engine = plugins.load("engine", "llamacpp")
    narrow, wide = (LlamaCppOptions(precision=kind) for kind in ("file", "int8"))
    more = engine.footprint(wide, smollm(), GRANTED).memory - engine.footprint(narrow, smollm(), GRANTED).memory
    assert more == pytest.approx(0.9 * 2 * 92_000_000, rel=0.01)


@pytest.mark.parametrize("name", ["llamacpp", "openvino", "torch"])
@pytest.mark.parametrize("room", [64, 8, 2, 1])
def test_what_is_tried_fits_into_what_is_granted_and_becomes_smaller_with_it(name: str, room: int) -> None:
    engine, granted = plugins.load("engine", name), Capacity(cpus=2, memory=room * 2**30)
    found = engine.candidates(smollm(), granted)
    assert found or (name, room) == ("torch", 1)
    for options in found:
        assert engine.footprint(options, smollm(), granted).memory <= granted.memory
    larger = engine.candidates(smollm(), Capacity(cpus=2, memory=64 * 2**30))
    for options, other in zip(found, larger, strict=False):
        needs, most = (engine.footprint(one, smollm(), granted).memory for one in (options, other))
        assert needs <= most


def test_the_more_memory_the_more_requests_llamacpp_answers_together() -> None:
    engine = plugins.load("engine", "llamacpp")
    most = [engine.candidates(smollm(), Capacity(cpus=2, memory=gib * 2**30))[0].parallel for gib in (64, 8, 2)]
    assert most == sorted(most, reverse=True)
    assert most[0] == 32
    assert most[0] > most[-1]


@pytest.mark.parametrize("name", ["llamacpp", "openvino"])
def test_with_many_cores_half_of_the_threads_are_tried_too(name: str) -> None:
    engine = plugins.load("engine", name)
    threads = [options.threads for options in engine.candidates(smollm(), Capacity(cpus=8, memory=2**36))]
    assert threads.count(4) == 1
    assert {options.threads for options in engine.candidates(smollm(), GRANTED)} == {None}


def test_torch_chooses_its_precision_itself_unless_one_is_asked_for() -> None:
    engine, model = plugins.load("engine", "torch"), smollm(format="safetensors", precision="fp32")
    kinds = {p: [o.dtype for o in engine.candidates(model, GRANTED, p)] for p in (None, "bf16", "fp32", "int8")}
    assert kinds == {None: ["auto"], "bf16": ["bf16"], "fp32": ["fp32"], "int8": []}


def test_an_engine_that_says_nothing_of_candidates_is_tried_with_its_defaults() -> None:
    engine = plugins.load("engine", "fake")
    assert engine.candidates(smollm(), GRANTED) == (FakeOptions(),)
    assert engine.candidates(smollm(), GRANTED, "int4") == (FakeOptions(),)
    assert engine.candidates(smollm(), GRANTED, "bf16") == ()


@pytest.mark.parametrize("name", ["fake", "llamacpp", "openvino", "openvino_encoders", "torch"])
def test_workers_read_no_certificates_but_where_a_library_of_theirs_needs_some(name: str) -> None:
    engine = plugins.load("engine", name)
    options = engine.Options.model_construct(**_defaults(engine))
    env = engine.process(options, facts(1), ResourceSpec(memory=1)).env
    assert (env.get("SSL_CERT_FILE") == env.get("SSL_CERT_DIR") == os.devnull) == (
        name not in ("openvino_encoders", "torch")
    )
