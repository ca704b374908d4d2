"""models, samples: model versions, and the catalogue."""

from __future__ import annotations

import click

from llm_os.cli.link import looking
from llm_os.cli.render import ago, as_json_option, print_json, print_table
from llm_os.models.catalogue import CATALOGUE, lookup
from llm_os.session import load_model
from llm_os.spec.models import ModelVersion
from llm_os.spec.units import format_bytes


@click.command(epilog="Example: llm-os models transformer-sentic_data@1")
@click.argument("ref", required=False)
@as_json_option
def models(ref: str | None, as_json: bool) -> int:
    """List model versions, or show one with its lineage."""
    transport = looking()
    if ref is not None:
        version = transport.call("GET", f"/v1/models/{ref}", ModelVersion)
        print_json(version)
        return 0
    found = transport.call("GET", "/v1/models", list[ModelVersion])
    if as_json:
        print_json(found)
        return 0
    rows = [
        (
            v.ref,
            v.task,
            f"{v.format} {v.precision}",
            format_bytes(v.size),
            v.lineage.parent or v.lineage.source,
            ago(v.created_at),
        )
        for v in found
    ]
    print_table(("VERSION", "TASK", "FORMAT", "SIZE", "FROM", "MADE"), rows, "No models yet: llm-os samples fetch")
    return 0


@click.command(epilog="Example: llm-os samples fetch smollm2")
@click.argument("action", type=click.Choice(["list", "fetch"]), default="list")
@click.argument("names", nargs=-1)
@as_json_option
def samples(action: str, names: tuple[str, ...], as_json: bool) -> int:
    """List the models of the catalogue, or fetch them (all, or those named)."""
    if action == "list":
        entries = [
            {"name": e.name, "title": e.title, "task": e.task, "license": e.license, "size": e.size, "source": e.source}
            for e in CATALOGUE.values()
        ]
        if as_json:
            print_json(entries)
        else:
            rows = [(e["name"], e["title"], e["license"], format_bytes(int(str(e["size"])))) for e in entries]
            print_table(("NAME", "WHAT", "LICENCE", "SIZE"), rows, "")
        return 0
    wanted = [lookup(name).name for name in names] or list(CATALOGUE)
    versions = [load_model(name).version for name in wanted]
    print_json(versions) if as_json else print(f"There: {', '.join(versions)}.")
    return 0


COMMANDS = {"models": models, "samples": samples}
