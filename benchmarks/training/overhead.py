"""What a training costs beside its steps: CPU seconds of kernel, stub and worker, and the way to the first step.

    python benchmarks/training/overhead.py --rows 3000 --rounds 5

A job goes through a real kernel of its own. Outside the steps is all but the steps: kernel, gateway, stub, and of
the worker its imports, loading, tokens, held-out rows, checkpoints and saving. The share of a job of ten minutes on
two cores (1,200 CPU seconds) follows from it, since only held-out rows and checkpoints grow with a longer job.
The first step is counted twice. Of a process that starts with nothing loaded: in CPU seconds with one thread, beside
those of `import torch` alone. And as a user waits for it: seconds from the call of `train` to the first step's end,
through a kernel, of the first training (nothing is kept ready yet) and of the next ones (a process is kept ready).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from prepared import context, inputs

from llm_os import plugins

JOB = 1200.0
SCRIPT = """
import json, sys, psutil, llm_os
data, _ = llm_os.load_data("sentic_data", limit=int(sys.argv[1]))
model = llm_os.load_model("transformer")
job = model.train(data, epochs=2, early_stopping=False, background=True)
import os
home = os.path.realpath(os.environ["LLM_OS_HOME"])
mine = []
for process in psutil.process_iter(["cmdline", "environ"]):
    environ = process.info["environ"] or {}
    if os.path.realpath(environ.get("LLM_OS_HOME", "/nowhere")) == home and process.pid != os.getpid():
        mine.append(process)
job.wait(quiet=True)
cpu = 0.0
for process in mine:
    try:
        if "llm_os.workers.task" not in " ".join(process.cmdline()):
            times = process.cpu_times()
            cpu += times.user + times.system
    except psutil.Error:
        pass
result = job._fetch().result
steps = sum(entry["cpu_seconds"] for entry in result["history"])
print(json.dumps({"control": cpu, "worker": result["usage"]["cpu_seconds"], "steps": steps}))
"""
TORCH = (
    "import time; begun = time.perf_counter(); import torch; print(time.process_time(), time.perf_counter() - begun)"
)
WAITING = """
import contextlib, json, os, sys, time, llm_os
from pathlib import Path
data, _ = llm_os.load_data("sentic_data")
model = llm_os.load_model("transformer")
home = Path(os.environ["LLM_OS_HOME"])
waited = []
for number in range(int(sys.argv[1])):
    begun = time.time()
    job = model.train(data, epochs=2, early_stopping=False, seed=number, background=True)
    found = None
    while found is None:
        for path in home.glob("run/attempts/*/reports.jsonl"):
            for line in path.read_text().splitlines():
                report = json.loads(line)
                if report["at"] > begun and report["values"].get("stage") == "training":
                    found = min(found or report["at"], report["at"])
        time.sleep(0.02)
    waited.append(found - begun)
    time.sleep(25)  # by then one is kept ready, if one will be
    job.cancel()
    with contextlib.suppress(Exception):  # it says that it was cancelled
        job.wait(quiet=True)
print(json.dumps(waited))
"""


class FirstStepError(Exception):
    """The first step is done; nothing more is to be measured."""


def first(cache: Path) -> float:
    """CPU seconds of this process from its start to the end of the first step."""
    import llm_os.workers.task

    del llm_os
    given = inputs(cache)
    task = plugins.load("task", "training/full")
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), given, 1)
        report = bench.report

        def seen(**values: object) -> None:
            report(**values)  # type: ignore[arg-type]
            if values.get("stage") == "training":
                raise FirstStepError

        bench.report = seen  # type: ignore[method-assign]
        try:
            task.run(bench, task.Options(epochs=10))
        except FirstStepError:
            return time.process_time()
    raise AssertionError("there was no step")


def child(*words: str, **environment: str) -> str:
    command = [sys.executable, *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip().splitlines()[-1]


def outside(rows: int) -> dict[str, float]:
    """CPU seconds of one job by where they went."""
    with tempfile.TemporaryDirectory() as folder:
        ports = {"LLM_OS_MANAGEMENT_PORT": "0", "LLM_OS_GATEWAY_PORT": "0", "LLM_OS_LINGER": "1"}
        home = {"LLM_OS_HOME": str(Path(folder) / "home"), "XDG_RUNTIME_DIR": folder}
        found: dict[str, float] = json.loads(child("-c", SCRIPT, str(rows), **ports, **home))
        time.sleep(5)  # its kernel ends by itself
        return found


def waiting(rounds: int) -> list[float]:
    """Seconds from `train` to the first step's end, of one training after the other."""
    with tempfile.TemporaryDirectory() as folder:
        ports = {"LLM_OS_MANAGEMENT_PORT": "0", "LLM_OS_GATEWAY_PORT": "0", "LLM_OS_LINGER": "1"}
        home = {"LLM_OS_HOME": str(Path(folder) / "home"), "XDG_RUNTIME_DIR": folder}
        found: list[float] = json.loads(child("-c", WAITING, str(rounds), **ports, **home))
        time.sleep(5)
        return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-training")
    parser.add_argument("--first", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        print(first(options.cache))
        return
    inputs(options.cache)
    one = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    torch, step = [], []
    for _ in range(options.rounds):
        torch.append(float(child("-c", TORCH, **one).split()[0]))
        step.append(float(child(__file__, "--first", "--cache", str(options.cache), **one)))
    beyond = [later - earlier for later, earlier in zip(step, torch, strict=True)]
    print(f"first step: {statistics.median(step):.1f} CPU s, import torch alone {statistics.median(torch):.1f}")
    print(f"  beyond importing torch {statistics.median(beyond):.1f} ({min(beyond):.1f} to {max(beyond):.1f})")
    wall = [float(child("-c", TORCH).split()[1]) for _ in range(options.rounds)]
    cold, *warm = waiting(options.rounds + 1)
    print(f"seconds from train() to the end of the first step: {cold:.1f} at first, then {statistics.median(warm):.1f}")
    print(f"  ({min(warm):.1f} to {max(warm):.1f}); import torch alone {statistics.median(wall):.1f}")
    found = outside(options.rows)
    rest = found["worker"] - found["steps"] + found["control"]
    print(
        f"a job: control plane {found['control']:.1f} CPU s, worker {found['worker']:.1f}, steps {found['steps']:.1f}"
    )
    print(f"  outside the steps {rest:.1f} CPU s: {100 * rest / JOB:.1f} % of a job of ten minutes on two cores")


if __name__ == "__main__":
    main()
