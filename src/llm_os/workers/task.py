"""Runs the one task that an attempt folder names: `python -m llm_os.workers.task <folder>`. Knows no kernel, no store.

It turns whatever a task raises into one `error` report and an exit code of `spec.attempts`, so that the kernel never
has to read a traceback.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llm_os import plugins
from llm_os.errors import CapacityError, DiskFullError, InternalError, InvalidInputError, InvalidOptionError, LLMOSError
from llm_os.spec.attempts import EXIT_FAILED, EXIT_OK, EXIT_STOPPED, EXIT_USER_ERROR, AttemptSpec, TaskCall
from llm_os.spec.base import Json, Spec
from llm_os.tasks.context import Context, InputFolder, Stopped
from llm_os.tasks.task import Task
from llm_os.workers import shortage


def build_context(spec: AttemptSpec, call: TaskCall, folder: Path) -> Context:
    """The context of an attempt folder; makes the folders that are not there yet."""
    output, checkpoints, scratch = Path(call.output), Path(call.checkpoints), folder / "scratch"
    for path in (output, checkpoints, scratch):
        path.mkdir(parents=True, exist_ok=True)
    return Context(
        inputs={role: InputFolder(Path(given.path), given.facts) for role, given in call.inputs.items()},
        output=output,
        checkpoints=checkpoints,
        scratch=scratch,
        threads=spec.threads,
        devices=spec.devices,
        reports=folder / "reports.jsonl",
        control=folder / "control.json",
        usage=usage,
    )


def usage() -> dict[str, Json]:
    """What this process and its ended children used: `cpu_seconds`, and `peak_memory` in bytes."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 3),
        "peak_memory": max(own.ru_maxrss, children.ru_maxrss) * 1024,
    }


def read_options(task: Task[Spec], call: TaskCall) -> Spec:
    """Raises InvalidOptionError that names every option that is wrong."""
    try:
        return task.Options.model_validate(dict(call.options))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}" for e in error.errors())
        raise InvalidOptionError(
            f"The options of {call.task} are wrong: {wrong}.",
            hint=f"It knows: {', '.join(task.Options.model_fields)}.",
        ) from error


def explain(error: BaseException, log: Path) -> LLMOSError:
    """The error a user should see for whatever the task raised."""
    if isinstance(error, LLMOSError):
        return error
    if shortage.of_disk(error):
        return DiskFullError(f"The disk is full: {error}.")
    if shortage.of_memory(error):
        return CapacityError(
            f"The task ran out of memory ({error or type(error).__name__}).",
            hint="Give it a smaller batch_size, or more memory (set_resources(memory=...)).",
        )
    return InternalError(
        f"The task ended with {type(error).__name__}: {error}. Its log is {log}.",
        details={"log": str(log), "type": type(error).__name__},
    )


def fail(context: Context, error: LLMOSError) -> int:
    """Report the error and choose the exit code. What a failed task wrote goes first, so that a full disk has room."""
    for path in (context.output, context.scratch):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(exist_ok=True)
    values = error.to_dict()
    values["details"] = {**error.details, "usage": usage()}
    try:
        context.error(values)
    except OSError as cannot:
        with contextlib.suppress(OSError):
            print(f"The error could not be reported ({cannot}): {error}", file=sys.stderr)
    except (ValidationError, TypeError):  # details that are no JSON
        context.error({**error.to_dict(), "details": {key: repr(value) for key, value in error.details.items()}})
    return EXIT_USER_ERROR if isinstance(error, InvalidInputError) else EXIT_FAILED


def perform(context: Context, call: TaskCall, log: Path, load: Callable[[str, str], Any] = plugins.load) -> int:
    """Load, validate, run. The exit code of the worker; raises nothing.

    Args:
        load: finds a plugin by family and name.
    """
    try:
        task: Task[Spec] = load("task", call.task)
        task.run(context, read_options(task, call))
        if task.output is not None and not (context.output / "artifact.json").exists():
            if context.should_stop():
                return EXIT_STOPPED
            raise InternalError(f"The task {call.task} ended without output. Its log is {log}.")
        if not context.has_result:
            context.result()
    except Stopped:
        if context.should_stop():
            return EXIT_STOPPED
        return fail(context, InternalError(f"The task {call.task} stopped although nobody asked it to."))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the border: whatever it is becomes a report
        code = fail(context, explain(error, log))  # first: it makes room for the traceback on a full disk
        with contextlib.suppress(OSError):
            # A user's mistake is told in a sentence; where the code was then is of no use to anybody.
            print(error) if isinstance(error, InvalidInputError) else traceback.print_exception(error)
        return code
    return EXIT_OK


def run(folder: Path) -> int:
    """Run the attempt of `folder`; see `spec.attempts` for the exit codes."""
    spec = AttemptSpec.model_validate_json((folder / "spec.json").read_bytes())
    if spec.task is None:
        raise InternalError(f"The attempt {spec.attempt} names no task.")
    context = build_context(spec, spec.task, folder)
    signal.signal(signal.SIGTERM, lambda *_: context.request_stop())
    return perform(context, spec.task, folder / "log")


def main() -> None:
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    code = run(Path(sys.argv[1]).resolve())
    for flush in (logging.shutdown, sys.stdout.flush, sys.stderr.flush):
        with contextlib.suppress(OSError):
            flush()
    # The outcome is written. Threads and libraries that crash or hang while the interpreter ends must not change it.
    os._exit(code)


if __name__ == "__main__":
    main()
