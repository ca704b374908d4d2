"""Which installed packages are of a version that LLM OS was not made for; reads metadata, imports nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata

_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_BOUND = re.compile(r"(==|!=|>=|<=|>|<)\s*([0-9][^\s,]*)")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Misfit:
    """A package that is missing or of the wrong version.

    Attributes:
        installed: None when it is missing.
        wanted: such as `>=5.23,<6`.
        extra: name of the extra that asks for it; empty for what is always needed.
    """

    name: str
    installed: str | None
    wanted: str
    extra: str = ""

    @property
    def command(self) -> str:
        """What installs the right one."""
        return f"pip install '{self.name}{self.wanted}'"

    def __str__(self) -> str:
        has = f"{self.installed} is installed" if self.installed else "it is not installed"
        return f"{self.name}: {has}, {self.wanted or 'any version'} is wanted"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@cache
def requirements() -> tuple[str, ...]:
    """What this distribution asks for, with its extras; empty where it runs without being installed."""
    try:
        return tuple(metadata.requires("llm-os") or ())
    except metadata.PackageNotFoundError:
        return ()


def misfits(
    asked: Iterable[str] | None = None, installed: Callable[[str], str | None] = _installed
) -> tuple[Misfit, ...]:
    """Packages of the wrong version, and missing ones that no extra asks for. By name, each once."""
    found: dict[str, Misfit] = {}
    for line in requirements() if asked is None else asked:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        name, wanted, marker = match[1], _in_order(match[2]), match[3] or ""
        extra = m[1] if (m := _EXTRA.search(marker)) else ""
        version = installed(name)
        if (version is None and not extra) or (version is not None and not fits(version, wanted)):
            found.setdefault(name, Misfit(name, version, wanted, extra))
    return tuple(found[name] for name in sorted(found))


def extra_of(module: str) -> str | None:
    """The extra that brings this module, where its package is named as the module is."""
    for line in requirements():
        match = _REQUIREMENT.match(line)
        if match is not None and match[1].lower().replace("-", "_") == module.lower().replace("-", "_"):
            found = _EXTRA.search(match[3] or "")
            return found[1] if found else ""
    return None


def fits(version: str, wanted: str) -> bool:
    """Whether a version lies within bounds such as `>=2.13,<2.14`; local parts (`+cpu`) do not count."""
    have = _numbers(version)
    checks = {
        "==": lambda bound: have == bound,
        "!=": lambda bound: have != bound,
        ">=": lambda bound: have >= bound,
        "<=": lambda bound: have <= bound,
        ">": lambda bound: have > bound,
        "<": lambda bound: have < bound,
    }
    return all(checks[sign](_numbers(bound)) for sign, bound in _BOUND.findall(wanted))


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else [0]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _in_order(bounds: str) -> str:
    """Lower bounds first, as people write them."""
    return ",".join(sorted((part.strip() for part in bounds.split(",") if part.strip()), key=lambda b: b[0] == "<"))
