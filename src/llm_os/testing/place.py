"""A home of its own, with scripts and commands in it as a user runs them; must not know a kernel from inside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATIENCE = 500.0
"""Seconds that a program may take."""


class Place:
    """See the module. Programs run in `folder`, where the home lies too unless `home` names another.

    Attributes:
        env: the environment of all programs: free ports, sockets in `folder`.

    Args:
        more: further variables.
    """

    def __init__(self, folder: Path, *, home: Path | None = None, more: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = home or folder / "home"
        self.env = {
            **os.environ,
            "LLM_OS_HOME": str(self.home),
            "LLM_OS_MANAGEMENT_PORT": "0",
            "LLM_OS_GATEWAY_PORT": "0",
            "XDG_RUNTIME_DIR": str(folder),
            **(more or {}),
        }

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        """The interpreter with these words, not waited for; `more` are further variables."""
        pipe = subprocess.PIPE
        command = [sys.executable, *words]
        return subprocess.Popen(command, env={**self.env, **more}, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """What became of the interpreter with these words. Raises TimeoutExpired after `PATIENCE`."""
        process = self.start(*words, **more)
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def script(self, text: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """What became of a script."""
        return self.run("-c", text, *words, **more)

    def cli(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """What became of `llm-os` with these words."""
        return self.run("-m", "llm_os.cli.main", *words, **more)

    def said(self, *words: str) -> str:
        """What `llm-os` says, which must succeed."""
        return _good(self.cli(*words)).stdout

    def told(self, *words: str) -> Any:
        """What `llm-os` tells with `--json`."""
        return json.loads(self.said(*words, "--json"))

    def last(self, text: str, *words: str) -> Any:
        """The last line that a script prints, which is JSON."""
        return json.loads(_good(self.script(text, *words)).stdout.splitlines()[-1])


def _good(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done
