"""evaluate: how good a model is on data, how sure that is, and whether it is better than another one."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import click

from llm_os.cli.commands.data import data_options, prepared
from llm_os.cli.options import further
from llm_os.cli.render import as_json_option, print_json
from llm_os.session import load_model


@click.command(
    epilog="Example: llm-os evaluate transformer-sentic_data sentic_data --against transformer-sentic_data@1"
)
@click.argument("model")
@click.argument("source")
@data_options
@click.option("--against", metavar="MODEL", help="Another version, judged on the same rows: which one is better?")
@click.option("--method", help="classification, perplexity, generation ...; otherwise what fits model and data.")
@click.option("--slice", "slices", multiple=True, metavar="COLUMN", help="Divide the rows: a column, length, language.")
@click.option("--long", is_flag=True, help="Show everything: intervals, classes, confusion, calibration, slices.")
@click.option("--save", type=click.Path(path_type=Path), help="New folder for the report, its rows and pictures.")
@click.option("--option", "more", multiple=True, metavar="NAME=VALUE", help="Any other option of the method.")
@as_json_option
def evaluate(
    model: str,
    source: str,
    against: str | None,
    method: str | None,
    slices: tuple[str, ...],
    long: bool,
    save: Path | None,
    more: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Judge a model on the test rows of data."""
    extra = further(more, method="--method", slices="--slice", against="--against")
    if slices:
        extra["slices"] = list(slices)
    handle = load_model(model)
    other = load_model(against) if against is not None else None
    _, rows = prepared(source, options)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        found: Any = handle.evaluate(rows, against=other, method=method, **extra)
    if save is not None:
        (found if other is None else found.a).save(save)
    if as_json:
        print_json(found.to_dict())
    else:
        print(found.describe() if long else said.getvalue().rstrip())
    return 0


COMMANDS = {"evaluate": evaluate}
