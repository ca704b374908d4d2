"""data, train: the way from data to a tuned model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import click

from llm_os.cli.render import as_json_option, print_json
from llm_os.errors import InvalidOptionError
from llm_os.session import load_data, load_model


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
            click.option("--seed", type=int, default=42, show_default=True),
            click.option("--redact", is_flag=True, help="Put placeholders in the place of personal data."),
        ]
    ):
        function = option(function)
    return function


def prepared(source: str, options: dict[str, Any]) -> Any:
    labels: int | Literal["score"] = "score" if options["labels"] == "score" else _integer(options["labels"])
    return load_data(source, **{**options, "labels": labels})


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidOptionError(f"--labels cannot be '{text}'.", hint="Give 2, 3 or score.") from None


@click.command(epilog="Example: llm-os data sentic_data --limit 1000")
@click.argument("source")
@data_options
@as_json_option
def data(source: str, as_json: bool, **options: Any) -> int:
    """Prepare data and show what is in it."""
    parts = prepared(source, options)
    if as_json:
        print_json({part.split: {**part.describe(), "fingerprint": part.fingerprint} for part in parts})
        return 0
    for part in parts:
        print(f"{part.describe()}\n")
    for row in parts[0].head(3):
        print(f"  {row['label']}: {str(row['text'])[:100]}")
    return 0


@click.command(epilog="Example: llm-os train transformer sentic_data --epochs 10 --option batch_size=16")
@click.argument("model")
@click.argument("source")
@data_options
@click.option("--epochs", type=int, default=3, show_default=True, help="The most that are run.")
@click.option("--method", default="auto", show_default=True, help="full, lora, ..., or auto: what fits, and why.")
@click.option("--name", help="Card of the result.")
@click.option("--option", "more", multiple=True, metavar="NAME=VALUE", help="Any other option of the method.")
@as_json_option
def train(
    model: str,
    source: str,
    epochs: int,
    method: str,
    name: str | None,
    more: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Tune a model on data. The result is a new version."""
    extra = dict(pair(text) for text in more)
    if name is not None:
        extra["name"] = name
    handle = load_model(model)
    rows, _ = prepared(source, options)
    result = handle.train(rows, epochs=epochs, method=method, **extra)
    print_json(dataclasses.asdict(result)) if as_json else print(result)
    return 0


def pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidOptionError(f"--option {text} has no value.", hint="Write --option NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


COMMANDS = {"data": data, "train": train}
