"""data, train: the way from data to a tuned model."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import click

from llm_os.cli.options import further, plain_value
from llm_os.cli.render import as_json_option, print_json
from llm_os.errors import InvalidOptionError, did_you_mean
from llm_os.session import load_data, load_model

EXPORTS = ("csv", "tensorboard", "mlflow", "png")
"""Formats of a history; tasks/training/export.py writes them."""


def data_options(function: Any) -> Any:
    """Options that say how data is prepared."""
    for option in reversed(
        [
            click.option("--language", default="en", show_default=True, help="en or zh (built-in data)."),
            click.option("--labels", default="2", show_default=True, help="2, 3 or score."),
            click.option("--text", help="Column of the text (own files)."),
            click.option("--label", help="Column of the label (own files)."),
            click.option("--limit", type=int, help="At most this many rows."),
            click.option("--test-size", type=float, default=0.2, show_default=True),
            click.option("--test", help="Test rows of the same sort: a file, or a second query."),
            click.option("--query", help="What to read from a database: SELECT ..."),
            click.option(
                "--bad-rows", type=click.Choice(["refuse", "skip"]), help="Name a bad row, or count and skip."
            ),
            click.option("--seed", type=int, default=42, show_default=True),
            click.option(
                "--step",
                "steps",
                multiple=True,
                metavar="NAME[:OPTION=VALUE,...]",
                help="A preparation step; give several in order. None: clean.",
            ),
            click.option("--redact", is_flag=True, help="Put placeholders in the place of personal data."),
        ]
    ):
        function = option(function)
    return function


def prepared(source: str, options: dict[str, Any]) -> Any:
    labels: int | Literal["score"] = "score" if options["labels"] == "score" else _integer(options["labels"])
    steps = [_step(text) for text in options["steps"]] or None
    given = {name: value for name, value in options.items() if value is not None}
    return load_data(source, **{**given, "labels": labels, "steps": steps})


def _step(text: str) -> tuple[str, dict[str, Any]]:
    """`clean`, `deduplicate:threshold=0.9,conflicts=drop` or `language:{"keep": ["en", "zh"]}`."""
    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    try:
        if rest.startswith("{"):
            return name, dict(json.loads(rest))
        for part in rest.split(",") if rest else []:
            option, value = part.split("=", 1)
            options[option] = plain_value(value)
    except ValueError:
        raise InvalidOptionError(
            f"--step {text} cannot be read.", hint="Write NAME, NAME:OPTION=VALUE,OPTION=VALUE or NAME:{JSON}."
        ) from None
    return name, options


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidOptionError(f"--labels cannot be '{text}'.", hint="Give 2, 3 or score.") from None


class Data(click.Group):
    """A first word that names no command is a source, to be prepared."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        named = args[:1] and args[0] in self.commands
        return super().resolve_command(ctx, args if named else ["prepare", *args])


@click.group(cls=Data, epilog="Example: llm-os data show sentic_data --limit 1000")
def data() -> None:
    """Prepare data, and show how good it is; both know --json.

    `llm-os data SOURCE` is short for `llm-os data prepare SOURCE`.
    """


@data.command(epilog="Example: llm-os data prepare sentic_data --limit 1000")
@click.argument("source")
@data_options
@as_json_option
def prepare(source: str, as_json: bool, **options: Any) -> int:
    """Prepare data and say what is in it."""
    parts = prepared(source, options)
    if as_json:
        print_json({part.split: {**part.describe(full=False), "fingerprint": part.fingerprint} for part in parts})
        return 0
    for part in parts:
        print(f"{part.describe(full=False)}\n")
    for row in parts[0].head(3):
        print(f"  {row.get('label', '')}: {str(row.get('text', row))[:100]}")
    return 0


@data.command(epilog="Example: llm-os data show reviews.csv --text review --label stars --pictures report")
@click.argument("source")
@data_options
@click.option("--split", type=click.Choice(["all", "train", "test"]), default="all", show_default=True)
@click.option("--model", help="Count lengths in the tokens of this model too.")
@click.option("--leaks", type=click.Choice(["refuse", "drop", "keep"]), default="keep", show_default=True)
@click.option("--pictures", type=click.Path(path_type=Path), metavar="FOLDER", help="Write PNG pictures there.")
@click.option(
    "--fail-on", type=click.Choice(["error", "warning"]), help="Exit with 1 where something that grave is found."
)
@as_json_option
def show(
    source: str,
    split: str,
    model: str | None,
    pictures: Path | None,
    fail_on: str | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Show the quality of data: classes, lengths, languages, duplicates, leaks, doubtful labels, personal data."""
    parts = {part.split: part for part in prepared(source, options)}
    named = None if model is None else load_model(model)
    report = parts["train" if split == "all" else split].describe(whole=split == "all", model=named)
    print_json(report.to_dict()) if as_json else print(report)
    if pictures is not None:
        paths = report.save_pictures(pictures)
        print(f"Pictures: {', '.join(map(str, paths))}", file=sys.stderr)
    grave = {"error": ("error",), "warning": ("error", "warning")}.get(fail_on or "", ())
    return 1 if any(finding.severity in grave for finding in report.findings) else 0


@click.command(epilog="Example: llm-os train transformer sentic_data --epochs 10 --option batch_size=16")
@click.argument("model")
@click.argument("source")
@data_options
@click.option("--epochs", type=int, default=3, show_default=True, help="The most that are run.")
@click.option("--method", default="auto", show_default=True, help="full, lora, ..., or auto: what fits, and why.")
@click.option("--name", help="Card of the result.")
@click.option("--option", "more", multiple=True, metavar="NAME=VALUE", help="Any other option of the method.")
@click.option(
    "--export", "exports", multiple=True, metavar="FORMAT:FOLDER", help="The history: csv, tensorboard, mlflow or png."
)
@as_json_option
def train(
    model: str,
    source: str,
    epochs: int,
    method: str,
    name: str | None,
    more: tuple[str, ...],
    exports: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Tune a model on data. The result is a new version."""
    extra = further(more, epochs="--epochs", method="--method", name="--name", background=None)
    wanted = [_export(text) for text in exports]
    if name is not None:
        extra["name"] = name
    handle = load_model(model)
    rows, _ = prepared(source, options)
    result = handle.train(rows, epochs=epochs, method=method, **extra)
    for form, folder in wanted:
        written = handle.export_history(form, folder)
        print(f"{form}: {written}", file=sys.stderr)
    print_json(dataclasses.asdict(result)) if as_json else print(result)
    return 0


def _export(text: str) -> tuple[str, str]:
    """(format, folder). Raises InvalidOptionError before hours of training are spent."""
    form, colon, folder = text.partition(":")
    if not colon or not folder:
        raise InvalidOptionError(f"--export {text} names no folder.", hint="Write --export tensorboard:runs.")
    if form not in EXPORTS:
        raise InvalidOptionError(f"--export knows no format '{form}'.", hint=did_you_mean(form, EXPORTS))
    return form, folder


COMMANDS = {"data": data, "train": train}
