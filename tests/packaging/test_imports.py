"""Importing is light: nothing heavy comes along, proved in fresh processes. (benchmarks/startup measures the time.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

FRAMEWORKS = {
    *("torch", "transformers", "peft", "accelerate", "safetensors", "sklearn", "numpy", "datasets", "pyarrow"),
    *("openvino", "openvino_genai", "llama_cpp", "vllm", "tensorflow", "keras", "jax", "ray", "gguf"),
}
SERVERS = {"sqlalchemy", "fastapi", "uvicorn", "aiohttp", "starlette", "uvloop"}
CLIENTS = {"httpx2", "httpx", "rich", "typer", "openai", "requests", "pydantic", "asyncio"}


def modules_after(code: str) -> set[str]:
    """Names of all modules loaded by `code` in a fresh interpreter, less those a bare one has."""
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    def loaded(first: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"{first}\n{show}"], capture_output=True, text=True, env=env, timeout=120, check=True
        )
        return set(json.loads(done.stdout.splitlines()[-1]))

    return loaded(code) - loaded("pass")


def test_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import llm_os")
    assert "llm_os" in loaded
    assert not loaded & (FRAMEWORKS | SERVERS | CLIENTS)
    assert len(loaded) < 60, sorted(loaded)


def test_the_public_names_load_no_server_and_no_framework() -> None:
    """The five lines need the client, and the client only."""
    loaded = modules_after("import llm_os\nfor name in llm_os.__all__: getattr(llm_os, name)")
    assert not loaded & (FRAMEWORKS | SERVERS)


def test_the_command_line_shows_its_help_without_server_and_framework() -> None:
    code = (
        "import sys\nfrom llm_os.cli.main import main\nsys.argv = ['llm-os', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
    )
    assert not modules_after(code) & (FRAMEWORKS | SERVERS)


@pytest.mark.parametrize(
    "module",
    [
        "llm_os.app",
        "llm_os.kernel.syscalls",
        "llm_os.drivers.launchers.local",
        "llm_os.scheduler.snapshot",
        "llm_os.plugins",
        "llm_os.client",
    ],
)
def test_the_control_plane_loads_no_framework(module: str) -> None:
    assert not modules_after(f"import {module}") & FRAMEWORKS


def test_the_control_plane_loads_no_framework_with_all_its_plugins() -> None:
    code = (
        "from llm_os import plugins\n"
        "for family in plugins.FAMILIES:\n"
        "    for name in plugins.names(family):\n"
        "        plugins.load(family, name)\n"
    )
    loaded = modules_after(code)
    assert "llm_os.drivers.launchers.local" in loaded
    assert not loaded & FRAMEWORKS


def least_processor_seconds(*arguments: str) -> float:
    """Processor time of a fresh interpreter, the least of five: what other programs do at the time counts little."""
    seen = []
    for _ in range(5):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        seen.append(used.ru_utime + used.ru_stime)
    return min(seen)


def test_importing_adds_less_than_150_ms() -> None:
    assert least_processor_seconds("-c", "import llm_os") - least_processor_seconds("-c", "pass") < 0.150


def test_help_takes_less_than_300_ms() -> None:
    assert least_processor_seconds("-m", "llm_os.cli.main", "--help") < 0.300
