"""Why did a server end? Its last words become an error with the likely cause; must not know which server it was."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from llm_os.errors import (
    BrokenWeightsError,
    CapacityError,
    LLMOSError,
    PortInUseError,
    UnavailableError,
    UnsupportedModelError,
)

MOST_WORDS = 4
"""Lines of a program's output that an error repeats."""
LONGEST = 300
_TELLING = re.compile(
    r"error|fail|fatal|cannot|could not|unable|exception|abort|not found|denied|killed", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cause:
    """What a program says when it ends so, and what that means."""

    said: re.Pattern[str]
    error: type[LLMOSError]
    why: str
    hint: str


def _cause(said: str, error: type[LLMOSError], why: str, hint: str) -> Cause:
    return Cause(re.compile(said, re.IGNORECASE), error, why, hint)


CAUSES: Sequence[Cause] = (
    _cause(
        r"out of memory|cannot allocate memory|bad_alloc|failed to allocate|unable to allocate|no available memory",
        CapacityError,
        "there is not enough memory",
        "Free memory, ask for a shorter `context`, or serve a smaller model.",
    ),
    _cause(
        r"unknown model architecture|model architectures? .*(not supported|cannot be)|unsupported model|"
        r"unknown pre-tokenizer|does not recognize this architecture",
        UnsupportedModelError,
        "it does not know models of this architecture",
        "Take another engine, or a newer version of this one.",
    ),
    _cause(
        r"address already in use|couldn't bind|could not bind|failed to bind",
        PortInUseError,
        "another program has its port",
        "Deploy again: another port is picked.",
    ),
    _cause(
        r"error while loading shared libraries|cannot open shared object|GLIBC\w*_[\d.]+' not found|undefined symbol|"
        r"ModuleNotFoundError|ImportError|No module named",
        UnavailableError,
        "a library that it needs is missing or of another version",
        "Install it again, in an environment of its own.",
    ),
    _cause(
        r"unrecognized arguments|invalid argument|unknown argument|invalid choice",
        UnavailableError,
        "its version does not know an option that it was given",
        "Install a version of the range that docs/how-to/choose-an-engine.md names.",
    ),
    _cause(
        r"failed to load model|error loading model|invalid magic|not within the file bounds|corrupted|"
        r"missing tensor|safetensors_rust|HeaderTooLarge|incomplete metadata",
        BrokenWeightsError,
        "it cannot read the weights",
        "Copy or download the model again.",
    ),
)


def last_words(output: str) -> list[str]:
    """The last lines that tell of a failure, or else the last lines."""
    lines = [line.strip()[:LONGEST] for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    return (telling or lines)[-MOST_WORDS:]


def ended(who: str, code: int, output: str, *, when: str) -> LLMOSError:
    """The error for a program that ended although nobody asked it to.

    Args:
        code: as `subprocess` has it: negative is a signal.
        output: what it wrote last.
        when: `while it started`, `while it served`.
    """
    found = next((cause for cause in CAUSES if cause.said.search(output)), None)
    telling = [line.strip()[:LONGEST] for line in output.splitlines() if found and found.said.search(line)]
    words = list(dict.fromkeys([*telling[:1], *last_words(output)]))
    said = f" Its last words: {' | '.join(words)}" if words else " It said nothing."
    how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
    if found is None and code == -signal.SIGKILL:
        found = Cause(re.compile(""), CapacityError, "nobody here sent it: the system may have run out of memory", "")
    if found is None:
        return UnavailableError(f"{who} ended {how} {when}.{said}", hint="Its whole output is in the log.")
    return found.error(f"{who} ended {how} {when}: {found.why}.{said}", hint=found.hint or CAUSES[0].hint)
