"""Runs the code of a page as a reader would: Python in one session, commands in a shell; tells what each printed.

`python run_page.py PAGE` writes a list of [language, code, output] as JSON. The blocks run in the current folder.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATE = Path(".shell-variables")


def shims(folder: Path) -> dict[str, str]:
    """Environment in which `llm-os` and `python` are those of this interpreter."""
    folder.mkdir()
    for name, words in {"llm-os": "-m llm_os.cli.main", "python": ""}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def shell(code: str, env: dict[str, str]) -> str:
    """What the commands print; variables of earlier blocks are known. Raises where a command fails."""
    whole = f"set -e\n[ ! -f {STATE} ] || . ./{STATE}\n{code}\n" + f"declare -p URL KEY > {STATE} 2>/dev/null || true\n"
    done = subprocess.run(["bash", "-c", whole], env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode} of\n{code}\n{done.stdout}")
    return done.stdout


def results(text: str, env: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    names: dict[str, Any] = {"__name__": "__main__"}
    for language, code in BLOCK.findall(text):
        if language == "bash":
            yield language, code, shell(code, env)
        elif language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as said:
                exec(compile(code, "page", "exec"), names)
            yield language, code, said.getvalue()


if __name__ == "__main__":
    found = list(results(Path(sys.argv[1]).read_text(encoding="utf-8"), shims(Path("shims").absolute())))
    print(json.dumps(found, ensure_ascii=False))
