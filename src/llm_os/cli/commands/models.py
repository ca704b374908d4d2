"""models, samples, merge: model versions, the catalogue, and an adapter that becomes a model of its own."""

from __future__ import annotations

import json
from pathlib import Path

import click

from llm_os.cli.link import looking
from llm_os.cli.render import ago, as_json_option, print_json, print_table
from llm_os.client.aliases import alias_place, move_alias
from llm_os.client.cards import card
from llm_os.client.transport import place
from llm_os.errors import InvalidInputError
from llm_os.models.catalogue import CATALOGUE, lookup
from llm_os.session import connect, load_model
from llm_os.spec.api import Alias
from llm_os.spec.models import ModelVersion
from llm_os.spec.units import format_bytes


class Models(click.Group):
    """`models card REF` is a command of its own; any other first word is the name of a version."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["show", *args])


@click.group(cls=Models, invoke_without_command=True, epilog="Example: llm-os models card transformer-sentic_data@1")
@as_json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> int:
    """List model versions; with a name, show that one with its lineage."""
    if ctx.invoked_subcommand is not None:
        return 0
    found = looking().call("GET", "/v1/models", list[ModelVersion])
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


@models.command(epilog="Example: llm-os models transformer-sentic_data@1")
@click.argument("ref")
@click.option("--json", is_flag=True, expose_value=False, help="It is JSON always.")
def show(ref: str) -> int:
    """Show a version with its lineage, as JSON."""
    print_json(looking().call("GET", place("models", ref, "model"), ModelVersion))
    return 0


@models.command(name="card", epilog="Example: llm-os models card transformer-sentic_data@1 --output CARD.md")
@click.argument("ref")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="File to write it to.")
@as_json_option
def card_of(ref: str, output: Path | None, as_json: bool) -> int:
    """Show the card of a version: data, training, evaluations, limits, licences."""
    transport = looking()
    found = card(transport, transport.call("GET", place("models", ref, "model"), ModelVersion))
    if output is not None:
        text = json.dumps(found.to_dict(), ensure_ascii=False, indent=1) + "\n" if as_json else found.markdown()
        output.write_text(text, encoding="utf-8")
        print(f"Written to {output}.")
    elif as_json:
        print_json(found.to_dict())
    else:
        print(found.markdown(), end="")
    return 0


@models.command(epilog="Example: llm-os models alias support-bot@production support-bot@3")
@click.argument("alias", required=False)
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Forget the alias.")
@click.option("--no-check", is_flag=True, help="Move it at once, though nobody asked PyTorch about the version.")
@as_json_option
def alias(alias: str | None, version: str | None, remove: bool, no_check: bool, as_json: bool) -> int:
    """List aliases; make one mean a version, so that deployments that follow it are updated; or forget one.

    Where a deployment that is compared with PyTorch follows it, PyTorch is asked before it moves.
    """
    transport = looking()
    if alias is None:
        found = transport.call("GET", "/v1/aliases", list[Alias])
        rows = [(one.ref, one.version, ", ".join(one.followers)) for one in found]
        print_json(found) if as_json else print_table(
            ("ALIAS", "MEANS", "FOLLOWED BY"), rows, "No aliases yet: llm-os models alias CARD@production CARD@1"
        )
        return 0
    card, at, name = alias.partition("@")
    if not at or not name or (version is None) is not remove:
        raise InvalidInputError(
            f"'{alias}' needs a name behind '@', and a version or --remove.",
            hint="Such as: llm-os models alias support-bot@production support-bot@3",
        )
    if version is None:
        one = transport.call("DELETE", alias_place(card, name), Alias)
        print_json(one) if as_json else print(f"{one.ref} means nothing any more.")
        return 0
    meant = transport.call("GET", place("models", version, "model"), ModelVersion)
    one = move_alias(connect(), card, name, meant, check=not no_check)
    told = f"; {', '.join(one.followers)} will be updated" if one.followers else ""
    print_json(one) if as_json else print(f"{one.ref} means {one.version}{told}.")
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


@click.command(epilog="Example: llm-os merge smollm2-chats --name assistant")
@click.argument("model")
@click.option("--base", metavar="MODEL", help="What it was trained on, where that is not recorded.")
@click.option("--name", help="Card of the result; the adapter's with -merged if left out.")
@as_json_option
def merge(model: str, base: str | None, name: str | None, as_json: bool) -> int:
    """Put an adapter into the weights of its base. The result is a new version; the adapter stays."""
    adapter = load_model(model)
    ref = adapter.version
    whole = adapter.merge(load_model(base) if base is not None else None, name)
    if as_json:
        print_json({"adapter": ref, "version": whole.version, "digest": whole.digest})
    else:
        print(f"{ref} was merged: {whole.version}.")
    return 0


@click.command(epilog="Example: llm-os gguf smollm2-chats && llm-os deploy smollm2-chats-gguf")
@click.argument("model")
@click.option("--base", metavar="MODEL", help="The GGUF model it was tuned from, where that is not recorded.")
@click.option("--name", help="Card of the result; the model's with -gguf if left out.")
@as_json_option
def gguf(model: str, base: str | None, name: str | None, as_json: bool) -> int:
    """Write a tuned chat model as GGUF in 8 bits, which openvino and llama.cpp serve. The result is a new version."""
    tuned = load_model(model)
    ref = tuned.version
    written = tuned.to_gguf(load_model(base) if base is not None else None, name)
    if as_json:
        print_json({"model": ref, "version": written.version, "digest": written.digest})
    else:
        print(f"{ref} was written as GGUF: {written.version}.")
    return 0


COMMANDS = {"models": models, "samples": samples, "merge": merge, "gguf": gguf}
