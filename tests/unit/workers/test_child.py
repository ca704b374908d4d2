"""A server that a worker starts: it answers, it dies with its worker, and its death is told in its own last words."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_os.errors import (
    BrokenWeightsError,
    CapacityError,
    LLMOSError,
    PortInUseError,
    UnavailableError,
    UnsupportedModelError,
)
from llm_os.testing.openai_server import program
from llm_os.workers.causes import ended, last_words
from llm_os.workers.child import SOCKET, Child
from llm_os.workers.upstream import Upstream

WORDS: list[tuple[str, type[LLMOSError], str]] = [
    ("ggml_aligned_malloc: failed to allocate 9 GB", CapacityError, "memory"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", CapacityError, "memory"),
    ("error loading model: unknown model architecture: 'mamba9'", UnsupportedModelError, "architecture"),
    ("gguf_init: invalid magic characters\nerror loading model: failed to load model", BrokenWeightsError, "weights"),
    ("couldn't bind HTTP server socket, hostname: 127.0.0.1", PortInUseError, "port"),
    ("llama-server: error while loading shared libraries: libgomp.so.1: cannot open", UnavailableError, "library"),
    ("ModuleNotFoundError: No module named 'vllm._C'", UnavailableError, "library"),
    ("error: invalid argument: --no-kv-unified", UnavailableError, "option"),
]


@pytest.mark.parametrize(("output", "kind", "why"), WORDS, ids=lambda value: str(value)[:20])
def test_the_likely_cause_of_a_death_is_read_from_its_last_words(output: str, kind: type, why: str) -> None:
    error = ended("llama.cpp", 1, f"a banner\n{output}\n", when="while it started")
    assert type(error) is kind
    assert why in error.message
    assert output.splitlines()[-1] in error.message
    assert error.hint


def test_a_death_without_a_known_cause_still_tells_its_last_words() -> None:
    error = ended("vLLM", 3, "one\ntwo\n", when="while it served")
    assert (type(error), error.message) == (
        UnavailableError,
        "vLLM ended with exit code 3 while it served. Its last words: one | two",
    )
    assert "said nothing" in ended("vLLM", 3, "", when="while it served").message


def test_the_line_that_tells_the_cause_is_told_however_early_it_came() -> None:
    output = "unknown model architecture: 'x'\n" + "".join(f"error: step {n} failed\n" for n in range(9))
    message = ended("llama.cpp", 1, output, when="while it started").message
    assert "unknown model architecture: 'x' | error: step 5 failed" in message


def test_who_is_killed_by_nobody_here_may_have_met_the_end_of_the_memory() -> None:
    error = ended("vLLM", -9, "loading\n", when="while it served")
    assert isinstance(error, CapacityError)
    assert "SIGKILL" in error.message


def test_lines_that_tell_of_a_failure_go_before_the_rest() -> None:
    assert last_words("error: no\n" + "banner\n" * 20) == ["error: no"]
    assert last_words("a\nb\n\nc\nd\ne\n") == ["b", "c", "d", "e"]


async def test_it_is_found_on_its_socket_which_only_its_user_can_open(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)  # longer than a socket's path may be
    child = Child("toy", [str(program(tmp_path / "server")), "--host", "{socket}"], deep)
    upstream = Upstream("toy", "http://toy", socket=child.socket)
    upstream.begin()
    await child.start()
    await child.until(lambda: upstream.healthy("/health"))
    assert stat.S_IMODE((deep / SOCKET).stat().st_mode) == 0o600
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    await upstream.end()
    await child.end()
    assert not (deep / SOCKET).exists()


async def test_one_that_ends_instead_of_listening_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = program(tmp_path / "server", says="error loading model: unknown model architecture: 'toy'")
    child = Child("toy", [str(path), "--host", "{socket}"], tmp_path / "run")
    await child.start()
    with pytest.raises(UnsupportedModelError, match="unknown model architecture: 'toy'"):
        await child.until(_never)
    await child.end()
    assert "unknown model architecture" in capfd.readouterr().out, "its output is in the log"


async def _never() -> bool:
    return False


async def test_one_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    child = Child("toy", [str(tmp_path / "missing")], tmp_path / "run")
    with pytest.raises(UnavailableError, match=r"No such file.*missing"):
        await child.start()
    await child.end()


async def test_one_that_does_not_end_when_asked_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_os.workers.child.GRACE", 0.1)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); open('up', 'w').close(); time.sleep(60)"
    child = Child("toy", [sys.executable, "-c", stubborn], tmp_path / "run")
    (tmp_path / "run" / SOCKET).touch()

    async def up() -> bool:
        return (tmp_path / "run" / "up").exists()

    await child.start()
    await child.until(up)
    death = asyncio.create_task(child.death())
    await child.end()
    assert "SIGKILL" in (await death).message


def test_it_dies_with_its_worker_whatever_kills_that(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys, pathlib\n"
        "from llm_os.workers.child import Child\n"
        "async def run():\n"
        "    child = Child('toy', [sys.executable, '-c', 'import time; time.sleep(60)'], pathlib.Path(sys.argv[1]))\n"
        "    await child.start()\n"
        "    print(child._process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(run())\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE, env={**os.environ}
    )
    assert worker.stdout is not None
    pid = int(worker.stdout.readline())
    descriptor = os.pidfd_open(pid)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    assert select.select([descriptor], [], [], 10)[0], "it outlived its worker"
    os.close(descriptor)
