"""Why something died or is slow: a table of causes, each a pure function of the evidence. No I/O, no clock.

Evidence is what was written down anyway: exit records, error reports, last lines of logs, counters. A cause that the
evidence does not show is not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llm_os.spec.alerts import Flow
from llm_os.spec.base import Json
from llm_os.spec.diagnoses import Cause, Diagnosis
from llm_os.spec.units import format_bytes, format_duration

MOST_LINES = 4
LONGEST = 300
"""Characters of a line of a log."""
LOOP = 2
"""Deaths in a row that make a crash loop."""
LITTLE = 64 * 2**20
"""Free bytes of a disk below which it is as good as full."""
QUEUE_SHARE = 0.25
"""Of an answer's time, above which waiting is what makes it slow."""
QUEUE_SECONDS = 0.1
THROTTLED_SHARE = 0.1
"""Of the time, above which a control group's quota is what makes an engine slow."""
SLOW_CLOCK = 0.6
"""Of the highest clock, below which a busy processor is held back."""


@dataclass(frozen=True, slots=True)
class Death:
    """An attempt that ended without being asked to.

    Attributes:
        at: seconds since the epoch.
        lived: seconds from its start; None: it never ran.
        code, signal: how it ended; both None when it left no record.
        message: what its stub wrote about the end.
        error: its last report of kind `error`.
        log: its last lines.
        held: bytes that it was granted.
    """

    attempt: str
    at: float
    lived: float | None = None
    code: int | None = None
    signal: int | None = None
    message: str = ""
    error: Mapping[str, Json] | None = None
    log: tuple[str, ...] = ()
    held: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a job, a deployment or the gateway.

    Attributes:
        error: `LLMOSError.to_dict()` that it ended with, or that it meets.
        deaths: oldest first.
        lives: whether it may yet get better by itself.
        flow: where the time of its requests went lately.
        throttled: seconds a second that the processor was held back lately, by quota; None: not known.
        heated: times a core was slowed down by heat lately.
        clock: of the highest clock.
        misfits: tells packages of the wrong version, a phrase each.
        extra_of: tells the extra of ours that brings a Python module; None: none does.
        listener: tells who listens on a port; empty: not known.
    """

    name: str
    kind: str = "deployment"
    error: Mapping[str, Json] | None = None
    deaths: tuple[Death, ...] = ()
    lives: bool = True
    flow: Flow | None = None
    now: float = 0.0
    disk_free: int | None = None
    memory_available: int | None = None
    throttled: float | None = None
    heated: int | None = None
    clock: float | None = None
    misfits: Callable[[], tuple[str, ...]] = tuple
    extra_of: Callable[[str], str | None] = lambda _: None
    listener: Callable[[int], str] = lambda _: ""

    @property
    def last(self) -> Death | None:
        return self.deaths[-1] if self.deaths else None

    def codes(self) -> set[str]:
        """Codes of its error and of the last death's."""
        errors = (self.error, self.last.error if self.last else None)
        return {str(error.get("code")) for error in errors if error is not None}

    def lines(self, pattern: re.Pattern[str], newest: int = 60) -> tuple[str, ...]:
        """What the error and the last death's report and log (its newest lines) say of it; the same thing once."""
        said = [_text(self.error)] if self.error is not None else []
        if self.last is not None:
            said += [_text(self.last.error)] if self.last.error is not None else []
            said += [self.last.message, *reversed(self.last.log[-newest:])]
        found: list[str] = []
        for line in said:
            if pattern.search(line) and not any(known in line for known in found):
                found.append(line.strip()[:LONGEST])
        return tuple(found[:MOST_LINES])

    def number(self, name: str) -> int | None:
        """A number in the details of its error, such as the port."""
        for error in (self.error, self.last.error if self.last else None):
            details = error.get("details") if error is not None else None
            if isinstance(details, Mapping) and isinstance(value := details.get(name), int):
                return value
        return None


def _text(error: Mapping[str, Json] | None) -> str:
    return str(error.get("message", "")) if error is not None else ""


OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|bad_alloc|MemoryError|[Cc]annot allocate memory|can't allocate memory"
    r"|unable to allocate .*(buffer|memory|array)|failed to allocate .*(buffer|memory)|lack of memory"
    r"|No available memory for the cache blocks|memory allocation of [0-9]+ bytes failed"
)
DEVICE = re.compile(r"CUDA|cudaMalloc|HIP |ROCm|on device \d|GPU")
BAD_WEIGHTS = re.compile(
    r"SafetensorError|deserializing header|HeaderTooLarge|HeaderTooSmall|InvalidHeader|MetadataIncompleteBuffer"
    r"|invalid magic|GGUF magic invalid|bad magic|not within the file bounds|corrupted or incomplete"
    r"|PytorchStreamReader failed|[Ww]eights .*are broken|[Cc]hecksum mismatch"
)
PORT_TAKEN = re.compile(r"EADDRINUSE|[Aa]ddress already in use|Port \d+ .*in use")
PORT = re.compile(r"\b[Pp]ort:? (\d+)|(?:\.\d{1,3}|localhost|\])'?(?::|, )(\d{2,5})\b")
MISSING = re.compile(r"No module named ['\"]?([A-Za-z0-9_.]+)")
DEPENDENCY = re.compile(
    r"No module named|ImportError|cannot import name|undefined symbol|cannot open shared object file"
    r"|version [`'][A-Za-z0-9_.]+' not found|The package \S+ is not installed|is required for a normal functioning"
    r"|was compiled (against|using) .*version|DistributionNotFound|PackageNotFoundError"
)
DISK_FULL = re.compile(
    r"No space left on device|[Nn]o room for|ENOSPC|Disk quota exceeded|[Tt]he disk .*is full|database or disk is full"
)
TEMPLATE = re.compile(
    r"no chat template|chat_template is not set|[Cc]annot use chat template|does not have a chat template"
)


def _disk_full(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(DISK_FULL)
    full = evidence.disk_free is not None and evidence.disk_free < LITTLE
    if not lines and "disk_full" not in evidence.codes() and not (full and evidence.deaths):
        return None
    free = "" if evidence.disk_free is None else f"{format_bytes(evidence.disk_free)} are free on the home's disk now"
    return Diagnosis(
        cause=Cause.DISK_FULL,
        sentence=f"{evidence.name} had no room on the disk.",
        evidence=_some(*lines, free) or _said(evidence),
        next="Free some space, then start it again; nothing half-written was kept.",
    )


def _out_of_memory(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(OUT_OF_MEMORY)
    # The stub's own guess after any SIGKILL proves nothing; that the system counted a kill does.
    lines = tuple(line for line in lines if "may have run out of memory" not in line)
    if not lines:
        return None
    last, on_device = evidence.last, any(DEVICE.search(line) for line in lines)
    where = "of its accelerator" if on_device else ""
    held = f"it was granted {format_bytes(last.held)}" if last is not None and last.held else ""
    free = evidence.memory_available
    available = f"{format_bytes(free)} of the machine are available now" if free is not None and not on_device else ""
    smaller = "a smaller cache (cache_tokens) or context" if evidence.kind == "deployment" else "a smaller batch_size"
    return Diagnosis(
        cause=Cause.OUT_OF_MEMORY,
        sentence=f"{evidence.name} ran out of memory {where}".rstrip() + ".",
        evidence=_some(*lines, held, available),
        next=f"Take a smaller or more compressed model or {smaller}, or end other work (llm-os ps shows it).",
    )


def _bad_weights(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(BAD_WEIGHTS)
    coded = evidence.codes() & {"broken_weights", "unsafe_weights", "integrity"}
    if not lines and not coded:
        return None
    return Diagnosis(
        cause=Cause.BAD_WEIGHTS,
        sentence=f"The weights that {evidence.name} was to load cannot be used.",
        evidence=_some(*lines) or _said(evidence),
        next="Copy or download the model again and register it anew; compare its size and sha256 with its maker's."
        if "unsafe_weights" not in coded
        else "Ask its makers for safetensors; pickles are never opened.",
    )


def _port_taken(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(PORT_TAKEN)
    if not lines and "port_in_use" not in evidence.codes():
        return None
    port = evidence.number("port")
    if port is None and (found := next((m for line in lines if (m := PORT.search(line))), None)):
        port = int(found[1] or found[2])
    who = evidence.listener(port) if port is not None else ""
    variable = "LLM_OS_GATEWAY_PORT" if evidence.kind == "gateway" else "its setting"
    return Diagnosis(
        cause=Cause.PORT_TAKEN,
        sentence=f"{evidence.name} cannot listen: port {port or '(see below)'} is taken by {who or 'another program'}.",
        evidence=_some(*lines, f"{who} listens there" if who else "") or _said(evidence),
        next=f"End that program, or set {variable} to another port (0 picks a free one).",
    )


def _dependency(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(DEPENDENCY, newest=15)  # many a library says at its start what it can do without
    if not lines:
        return None
    missing = next((found[1].split(".")[0] for line in lines if (found := MISSING.search(line))), None)
    if missing is not None:
        extra = evidence.extra_of(missing)
        package = f"'llm-os[{extra}]'" if extra else missing
        sentence = f"{evidence.name} needs the package {missing}, which is not installed here."
        step = f"pip install {package}, then start it again."
    else:
        sentence = f"{evidence.name} met a library of a version that does not fit."
        step = "Install the versions of constraints.txt again; llm-os doctor lists those that do not fit."
    return Diagnosis(cause=Cause.DEPENDENCY, sentence=sentence, evidence=_some(*lines, *evidence.misfits()), next=step)


def _template_missing(evidence: Evidence) -> Diagnosis | None:
    lines = evidence.lines(TEMPLATE)
    if not lines:
        return None
    return Diagnosis(
        cause=Cause.TEMPLATE_MISSING,
        sentence=f"The model of {evidence.name} has no chat template, so it cannot be asked as a chat.",
        evidence=lines,
        next="Take its instruction-tuned version, or save the template with its tokenizer "
        "(tokenizer.chat_template, then save_pretrained), and register it anew.",
    )


def _crash_loop(evidence: Evidence) -> Diagnosis | None:
    deaths = evidence.deaths
    if len(deaths) < LOOP:
        return None
    times = ", ".join(format_duration(max(0.0, evidence.now - death.at)) for death in deaths[-MOST_LINES:])
    lived = [death.lived for death in deaths if death.lived is not None]
    last = deaths[-1]
    said = _text(last.error)
    words = [said] if said else [line.strip()[:LONGEST] for line in last.log if line.strip()][-MOST_LINES:]
    follows = "It is started again, with growing pauses." if evidence.lives else "It was given up."
    how = f"the last time {ending(last)}" + (f": {said.rstrip('.')}" if said else "")
    hint = str(last.error.get("hint") or "") if last.error is not None else ""
    return Diagnosis(
        cause=Cause.CRASH_LOOP,
        sentence=f"{evidence.name} died {len(deaths)} times, one after the other, {how}. {follows}",
        evidence=_some(
            f"it died {times} ago",
            f"it lived {format_duration(min(lived))} to {format_duration(max(lived))}" if lived else "it never ran",
            *(f"last words: {word}" for word in words),
        ),
        next=hint or f"Read what it said: llm-os logs {evidence.name}",
    )


def ending(death: Death) -> str:
    """`with exit code 3`, `by signal 9, which nobody here sent`."""
    if death.signal is not None:
        return f"by signal {death.signal}" + (", which nobody here sent" if death.signal == 9 else "")
    if death.code is not None:
        return f"with exit code {death.code}"
    return death.message.rstrip(".") if death.message else "without a record of its end"


def _queued(evidence: Evidence) -> Diagnosis | None:
    flow = evidence.flow
    if flow is None or not flow.requests or flow.queue_seconds < QUEUE_SECONDS or not flow.answer_seconds:
        return None
    share = min(1.0, flow.queue_seconds / flow.answer_seconds)
    if share < QUEUE_SHARE:
        return None
    return Diagnosis(
        cause=Cause.QUEUED,
        sentence=f"{evidence.name} is slow because its requests queue: {share:.0%} of their time they wait for a slot.",
        evidence=where_the_time_goes(flow, evidence.now),
        next="Deploy more replicas, or bound who asks most (llm-os keys usage shows them).",
    )


def _throttled(evidence: Evidence) -> Diagnosis | None:
    found = []
    if evidence.throttled is not None and evidence.throttled > THROTTLED_SHARE:
        found.append(f"its control group was held back {evidence.throttled:.2f} s of each second: the quota is used up")
    if evidence.heated:
        found.append(f"cores were slowed down by heat {evidence.heated} times in the last minutes")
    busy = evidence.flow is not None and evidence.flow.in_flight > 0
    if evidence.clock is not None and evidence.clock < SLOW_CLOCK and busy:
        found.append(f"under load the cores run at {evidence.clock:.0%} of their highest clock")
    if not found:
        return None
    quota = evidence.throttled is not None and evidence.throttled > THROTTLED_SHARE
    return Diagnosis(
        cause=Cause.THROTTLED,
        sentence=f"{evidence.name} is slow because the processor is held back.",
        evidence=tuple(found),
        next="Raise the control group's quota of cores, or set LLM_OS_CPUS to what it grants."
        if quota
        else "See to cooling, power supply and the governor of the clock (performance).",
    )


FATAL: Sequence[Callable[[Evidence], Diagnosis | None]] = (
    _disk_full,
    _out_of_memory,
    _bad_weights,
    _port_taken,
    _template_missing,
    _dependency,
    _crash_loop,
)
"""Why something died; the surest first."""
SLOW: Sequence[Callable[[Evidence], Diagnosis | None]] = (_queued, _throttled)


def diagnose(evidence: Evidence) -> tuple[Diagnosis, ...]:
    """All that the evidence shows, the most telling first."""
    looks = (*FATAL, *SLOW) if evidence.lives else FATAL
    return tuple(found for look in looks if (found := look(evidence)) is not None)


def where_the_time_goes(flow: Flow, now: float) -> tuple[str, ...]:
    """Two lines about a deployment's last minutes."""
    window = f"in the last {format_duration(flow.seconds)}"
    if not flow.requests:
        return (f"no request was answered {window}",)
    share = min(1.0, flow.queue_seconds / flow.answer_seconds) if flow.answer_seconds else 0.0
    slots = f" of {flow.slots:.0f} slots" if flow.slots else ""
    ago = format_duration(max(0.0, now - flow.at))
    return (
        f"{flow.requests:.0f} requests {window}, {format_duration(flow.answer_seconds)} each, of which "
        f"{format_duration(flow.queue_seconds)} ({share:.0%}) in the queue",
        f"{flow.in_flight:.0f}{slots} in use, {flow.waiting:.0f} waiting, {ago} ago",
    )


def _said(evidence: Evidence) -> tuple[str, ...]:
    """The message of the error whose code told the cause."""
    return _some(_text(evidence.error), _text(evidence.last.error) if evidence.last else "")[:1]


def _some(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)
