"""The registry of plugins: one file in a family's folder is one plugin, named by the file. Imports at first use.

A plugin file has a line that begins with `PLUGIN = `; other files of the folder are its helpers. The scan reads text,
it imports nothing.

Another distribution brings plugins by entry points of the group `llm_os.FAMILY`: the name is the plugin's, the value is
the module that holds `PLUGIN`. Its code runs in the kernel, so it is loaded only where the setting `plugins` names it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from llm_os.errors import ConflictError, NotFoundError, did_you_mean
from llm_os.settings import Settings

_MARK = re.compile(r"^PLUGIN\b.*=", re.MULTILINE)
_ROOT = Path(__file__).parent

FAMILIES: dict[str, str] = {
    "device": "drivers/devices",
    "engine": "drivers/engines",
    "launcher": "drivers/launchers",
    "task": "tasks",
    "application": "tasks/applications",
    "architecture": "models/architectures",
    "step": "tasks/preparation",
    "format": "tasks/datasets/formats",
}
"""Family -> folder below the package. Tasks lie one folder deeper: `tasks/training/full.py` is `training/full`."""


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    module: str
    origin: str
    """Its file, or the distribution that brings it."""


@cache
def scan(family: str) -> dict[str, Entry]:
    """All plugins of a family by name; nothing is imported. Raises ConflictError for two of one name."""
    folder = _ROOT / FAMILIES[family]
    pattern = "*/*.py" if family == "task" else "*.py"
    found: dict[str, Entry] = {}
    others = {_ROOT / other for name, other in FAMILIES.items() if name != family}
    for file in sorted(folder.glob(pattern)):
        if file.parent in others or file.name.startswith("_") or not _MARK.search(file.read_text(encoding="utf-8")):
            continue
        relative = file.relative_to(folder).with_suffix("")
        name = relative.as_posix()
        module = ".".join(["llm_os", *FAMILIES[family].split("/"), *relative.parts])
        found[name] = Entry(name, module, str(file))
    for entry in _brought(family):
        if entry.name in found:
            raise ConflictError(
                f"Two {family} plugins are named '{entry.name}': {found[entry.name].origin} and {entry.origin}.",
                hint="Take one of them out of LLM_OS_PLUGINS.",
            )
        found[entry.name] = entry
    return found


def _brought(family: str) -> Iterator[Entry]:
    """Plugins of the distributions that the operator named. Raises NotFoundError for one that is not installed."""
    for name in filter(None, (one.strip() for one in Settings().plugins.split(","))):
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError as missing:
            raise NotFoundError(
                f"LLM_OS_PLUGINS names '{name}', which is not installed.", hint=f"pip install {name}, or leave it out."
            ) from missing
        for point in distribution.entry_points:
            if point.group == f"llm_os.{family}":
                yield Entry(point.name, point.module, f"the distribution {name}")


def names(family: str) -> tuple[str, ...]:
    """Names of all plugins of a family."""
    return tuple(scan(family))


@cache
def load(family: str, name: str) -> Any:
    """The plugin object. Raises NotFoundError with "did you mean"."""
    entries = scan(family)
    if name not in entries:
        kin = [known for known in entries if known.rpartition("/")[0] == name.rpartition("/")[0]]
        raise NotFoundError(f"There is no {family} '{name}'.", hint=did_you_mean(name, kin or entries))
    return importlib.import_module(entries[name].module).PLUGIN
