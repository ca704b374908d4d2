"""Loads a program and waits to become it for an attempt: `python -m llm_os.workers.spare PROGRAM [MODULE ...]`.

PROGRAM is a module that `python -m` runs; the others are loaded before it. It reads one line of JSON on standard
input: `folder`, `argv`, `env` and `cwd` of the attempt. End of input ends it. Its stub starts it with the environment
of the attempts it is meant for, so only the name of the attempt's folder is new to it.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Mapping
from typing import Any

from llm_os.workers import pace


def become(call: Mapping[str, Any]) -> None:
    """Take environment, folder and log of the attempt, as if the process had been started for it."""
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    log = os.open(os.path.join(call["folder"], "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, stream in enumerate((null, log, log)):
        os.dup2(stream, number)
    for stream in (null, log):
        os.close(stream)
    sys.argv = [sys.argv[0], *call["argv"][3:]]  # behind `python -m PROGRAM`


def main() -> None:
    program, *modules = sys.argv[1:]
    pace.slow()
    pace.import_all(modules)
    pace.load([program])
    line = sys.stdin.buffer.readline()
    if line.endswith(b"\n"):
        pace.full()
        become(json.loads(line))
        sys.modules.pop(program, None)  # what it needs is loaded; it alone is run anew, as `python -m` does
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
