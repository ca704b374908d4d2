"""calibrate: what the engines that could serve a model do on this machine, and which one is taken."""

from __future__ import annotations

from collections.abc import Sequence

import click

from llm_os.cli.render import as_json_option, print_json, print_table
from llm_os.client.calibrations import calibrate as calibrated
from llm_os.client.calibrations import measured
from llm_os.client.transport import place
from llm_os.session import connect, load_model
from llm_os.spec.calibration import STREAMS, Calibration, Trial
from llm_os.spec.models import ModelVersion
from llm_os.spec.units import format_bytes


@click.command(epilog="Example: llm-os calibrate smollm2")
@click.argument("model")
@click.option("--precision", help="Only what serves in it: int8, bf16 ...")
@click.option("--again", is_flag=True, help="Measure although it was done.")
@as_json_option
def calibrate(model: str, precision: str | None, again: bool, as_json: bool) -> int:
    """Measure the engines that could serve MODEL on this machine, and show what each did.

    `llm-os deploy` takes the best one where no engine is named. Figures hold until the engines or the machine change.
    """
    connection = connect()
    version = connection.transport.call("GET", place("models", load_model(model).version, "model"), ModelVersion)
    found = calibrated(connection, version, precision, again=again)
    if found is None:
        candidates = measured(connection, version, precision).candidates
        names = [candidate.member.engine for candidate in candidates]
        if as_json:
            print_json({"version": version.ref, "candidates": names, "calibration": None})
        else:
            print(_nothing(version, names, precision))
        return 0
    if as_json:
        print_json(found)
        return 0
    counted = "tokens/s" if version.task == "text-generation" else "texts/s"
    head = (
        "",
        "ENGINE",
        "OPTIONS",
        *(f"{counted} AT {streams}" for streams in STREAMS),
        "FIRST",
        "MEMORY",
        "AS PYTORCH",
    )
    print_table(head, [_row(found, place, trial) for place, trial in enumerate(found.trials)], "Nothing was tried.")
    print(f"\n{found.why}.")
    return 0


def _nothing(version: ModelVersion, names: Sequence[str], precision: str | None) -> str:
    what = f"{version.ref}{f' in {precision}' if precision else ''}"
    if not names:
        return f"No engine here serves {what}."
    return f"Nothing was measured: {names[0]} is the only engine here that serves {what}."


def _row(found: Calibration, place: int, trial: Trial) -> Sequence[str]:
    options = " ".join(f"{name}={value}" for name, value in trial.member.options.items() if _told(found, name, value))
    head = ("*" if place in found.chosen else "", trial.member.engine, options)
    if trial.error is not None:
        return (*head, *[""] * len(STREAMS), "", "", trial.error)
    speeds = [f"{speed.per_second:,.1f}" for speed in trial.speeds]
    parity = "is the reference, or there is none" if trial.parity is None else trial.parity.short
    return (*head, *speeds, f"{trial.speeds[0].first:.2f} s", format_bytes(trial.memory), parity)


def _told(found: Calibration, name: str, value: object) -> bool:
    """Options that say something: those that are set, and differ between the trials or are numbers of its size."""
    others = [trial.member.options[name] for trial in found.trials if name in trial.member.options]
    return value not in (None, 0) and (len(set(map(str, others))) > 1 or isinstance(value, int))


COMMANDS = {"calibrate": calibrate}
