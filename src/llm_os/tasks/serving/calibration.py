"""Starts every engine that could serve a model here, compares it with the reference, times it, and chooses.

The candidates are the kernel's: which engines there are, with which options and programs, only it knows. A candidate
that does not start, or does not agree, is a trial with an error and not the end of the job.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any

from pydantic import Field

from llm_os.errors import InvalidInputError, UnavailableError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Spec
from llm_os.spec.calibration import STREAMS, Calibration, Candidate, Speed, Trial
from llm_os.spec.parity import Parity
from llm_os.spec.resources import Capacity, ResourceSpec
from llm_os.spec.units import Bytes
from llm_os.tasks.context import Context
from llm_os.tasks.serving import choice
from llm_os.tasks.serving.loads import Load, load_of, unit_of
from llm_os.tasks.serving.replica import Refused, Replica, started
from llm_os.tasks.task import Task

OWN = 128 * 2**20
"""Bytes of this process."""
FILE = "calibration.json"
MOST_PERPLEXITY = 1.01
"""As a multiple of the reference's."""
LOOKS = 0.2
"""Seconds between two looks whether to stop."""


class CalibrationOptions(Spec):
    precision: str | None = None
    """Of the weights while they are served; none: any."""
    candidates: tuple[Candidate, ...] = ()
    """What is tried. The kernel names them."""
    fingerprint: str = ""
    """Of the machine and of the engines' versions. The kernel names it."""
    threads: int = Field(default=1, ge=1)
    """Cores that each of them may compute on. The kernel names it."""
    room: Bytes = 0
    """Memory that engines side by side may take. The kernel names it."""


class CalibrationTask(Task[CalibrationOptions]):
    Options = CalibrationOptions
    inputs = ("model",)
    optional_inputs = ("reference",)
    output = "report"
    cacheable = True

    def resources(
        self, options: CalibrationOptions, inputs: Mapping[str, ArtifactFacts], granted: Capacity
    ) -> ResourceSpec:
        load_of(str(inputs["model"].meta.get("task")))
        asked = [candidate.resources for candidate in options.candidates]
        return ResourceSpec(
            accelerators=max((one.accelerators for one in asked), default=0),
            accelerator_kinds=tuple(sorted({kind for one in asked for kind in one.accelerator_kinds})),
            cpus=min(0.5, granted.cpus),
            memory=OWN + max((one.memory for one in asked), default=0),
        )

    def run(self, context: Context, options: CalibrationOptions) -> None:
        model = context.inputs["model"]
        if not options.candidates:
            raise InvalidInputError("There is no engine to try.", hint="The kernel names them: submit it there.")
        task = str(model.facts.meta.get("task"))
        load = load_of(task)
        trials = asyncio.run(_while_wanted(context, _all(context, options, load)))
        needs = [one.resources.memory for one in options.candidates]
        chosen, why = choice.of(trials, room=options.room, needs=needs, unit=unit_of(task))
        if not chosen:
            raise UnavailableError(
                f"None of {len(trials)} candidates may serve it. " + " ".join(one.error or "" for one in trials),
                hint="'llm-os logs' with this job's id shows what they said.",
                details={"trials": [one.model_dump(mode="json") for one in trials]},
            )
        found = Calibration(
            version=model.facts.digest, fingerprint=options.fingerprint, trials=trials, chosen=chosen, why=why
        )
        (context.output / FILE).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
        context.finish("report", {"kind": "calibration", "model": model.facts.digest, "why": why})
        context.message(why + ".")
        context.result(calibration=found.model_dump(mode="json"))


async def _while_wanted(context: Context, work: Coroutine[Any, Any, tuple[Trial, ...]]) -> tuple[Trial, ...]:
    """The result of the work; when the task shall stop it is broken off, its processes are ended, and `Stopped`."""
    running = asyncio.create_task(work)
    while not running.done():
        await asyncio.wait({running}, timeout=LOOKS)
        if context.should_stop() and not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            context.stop_here()
    return running.result()


async def _all(context: Context, options: CalibrationOptions, load: Load) -> tuple[Trial, ...]:
    """One after the other: side by side they would measure each other."""
    trials: list[Trial] = []
    names = choice.called([candidate.member for candidate in options.candidates])
    unit = unit_of(str(context.inputs["model"].facts.meta.get("task")))
    for number, candidate in enumerate(options.candidates):
        trial = await _one(context, options, number, candidate, load)
        trials.append(trial)
        told = choice.figures_of(trial, unit) if trial.error is None else trial.error
        context.message(f"{names[number]}: {told}")
    return tuple(trials)


async def _one(context: Context, options: CalibrationOptions, number: int, candidate: Candidate, load: Load) -> Trial:
    steps = 1 + len(STREAMS)
    total = steps * len(options.candidates)

    def step(done: int, stage: str) -> None:
        context.report(stage=f"{candidate.member.engine}: {stage}", step=steps * number + done, total=total)

    folder = context.scratch / f"trial-{number}"
    speeds: list[Speed] = []
    replica: Replica | None = None
    step(0, "starting and comparing" if candidate.compared and "reference" in context.inputs else "starting")
    try:
        async with started(candidate, context, folder, options.threads) as replica:
            refuse_worse(replica.parity)
            for done, streams in enumerate(STREAMS, start=1):
                step(done, f"{streams} at once" if streams > 1 else "one at a time")
                speeds.append(await load.measured(replica, streams))
            memory = replica.peak_memory()
    except Refused as refused:
        parity = refused.parity
        return Trial(member=candidate.member, parity=parity, error=refused.why)
    return Trial(
        member=candidate.member,
        speeds=tuple(speeds),
        parity=replica.parity,
        ready_seconds=replica.ready_seconds,
        memory=memory,
    )


def refuse_worse(parity: Parity | None) -> None:
    """Raises Refused for an engine that finds texts less likely than the reference does; who names it may have it."""
    if parity is not None and parity.perplexity is not None and not parity.perplexity <= MOST_PERPLEXITY:
        raise Refused(
            f"Its perplexity on the check texts is {parity.perplexity - 1:.1%} above PyTorch's, at most "
            f"{MOST_PERPLEXITY - 1:.0%} is taken unasked.",
            parity,
        )


PLUGIN = CalibrationTask()
