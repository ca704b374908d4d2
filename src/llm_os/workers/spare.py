"""Loads the modules that it is given, and waits to become the worker of an attempt: `python -m llm_os.workers.spare`.

It reads one line of JSON on standard input: `folder`, `env` and `cwd` of the attempt. End of input ends it. Its stub
starts it with the environment of the attempts it is meant for, so only the name of the attempt's folder is new to it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from llm_os.workers import task


def load(names: list[str]) -> None:
    """Import modules. One that cannot be imported is left to the task, which knows what to say."""
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
    sys.argv = [task.__file__, call["folder"]]


def main() -> None:
    load(sys.argv[1:])
    line = sys.stdin.buffer.readline()
    if line.endswith(b"\n"):
        become(json.loads(line))
        task.main()


if __name__ == "__main__":
    main()
