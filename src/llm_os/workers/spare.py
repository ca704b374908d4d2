"""Loads a program and waits to become it for an attempt: `python -m llm_os.workers.spare PROGRAM [MODULE ...]`.

PROGRAM is a module that `python -m` runs; the others are loaded before it. It reads one line of JSON on standard
input: `folder`, `argv`, `env` and `cwd` of the attempt. End of input ends it. Its stub starts it with the environment
of the attempts it is meant for, so only the name of the attempt's folder is new to it.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Mapping
from typing import Any


def load(names: list[str]) -> None:
    """Import modules. One that cannot be imported is left to the program, which knows what to say."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken library raises anything
            print(f"{name} was not loaded: {error}", file=sys.stderr)


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
    load([*modules, program])
    line = sys.stdin.buffer.readline()
    if line.endswith(b"\n"):
        become(json.loads(line))
        sys.modules.pop(program, None)  # what it needs is loaded; it alone is run anew, as `python -m` does
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
