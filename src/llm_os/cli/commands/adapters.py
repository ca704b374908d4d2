"""adapters: served beside the model of a deployment, added and removed while it serves."""

from __future__ import annotations

import dataclasses

import click

from llm_os.cli.link import looking
from llm_os.cli.render import as_json_option, print_json, print_table
from llm_os.client.adapters import ServedAdapter, adapters_of, add, remove
from llm_os.client.checks import checked
from llm_os.client.transport import place
from llm_os.spec import api
from llm_os.spec.deployments import Deployment


@click.group(invoke_without_command=True, epilog="Example: llm-os adapters add chat mood@1")
@as_json_option
@click.pass_context
def adapters(ctx: click.Context, as_json: bool) -> int:
    """List the adapters (LoRA) of all deployments; add and remove some, without a restart."""
    if ctx.invoked_subcommand is None:
        records = looking().call("GET", "/v1/deployments", list[Deployment])
        _show([one for record in records for one in adapters_of(record)], "No adapters are served.", as_json=as_json)
    return 0


@adapters.command("add", epilog="Example: llm-os adapters add chat mood@2 --as mood --replace")
@click.argument("deployment")
@click.argument("adapter_version")
@click.option("--as", "name", help="What requests call it, behind DEPLOYMENT and a colon; its card, if left out.")
@click.option("--replace", is_flag=True, help="Take the place of the one that has this name.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@as_json_option
def add_one(
    deployment: str, adapter_version: str, name: str | None, replace: bool, no_wait: bool, as_json: bool
) -> int:
    """Serve an adapter of a deployment's model, as DEPLOYMENT:NAME."""
    body = {"version": adapter_version, "name": name, "replace": replace}
    found = add(looking(), deployment, checked(api.AddAdapter, body, "An adapter"), wait=not no_wait)
    if as_json:
        print_json(_told(found))
    elif found.served:
        print(f"{found.model} is {found.version}.")
    else:
        print(f"{found.model} shall be {found.version}; {found.replicas} of {found.ready} replicas hold it.")
    return 0


@adapters.command("list", epilog="Example: llm-os adapters list chat")
@click.argument("deployment")
@as_json_option
def list_all(deployment: str, as_json: bool) -> int:
    """List the adapters of a deployment, and how many replicas hold each."""
    found = adapters_of(looking().call("GET", place("deployments", deployment, "deployment"), Deployment))
    _show(found, f"{deployment} serves its model alone.", as_json=as_json)
    return 0


@adapters.command("remove", epilog="Example: llm-os adapters remove chat mood")
@click.argument("deployment")
@click.argument("name")
@as_json_option
def remove_one(deployment: str, name: str, as_json: bool) -> int:
    """Serve an adapter no more. Answers that have begun end."""
    record = remove(looking(), deployment, name)
    if as_json:
        print_json([_told(one) for one in adapters_of(record)])
    else:
        print(f"{deployment}:{name} is served no more.")
    return 0


def _show(found: list[ServedAdapter], none: str, *, as_json: bool) -> None:
    if as_json:
        print_json([_told(one) for one in found])
        return
    rows = [(one.model, one.version, f"{one.replicas} of {one.ready}", one.failed or "") for one in found]
    print_table(("MODEL", "VERSION", "REPLICAS", "WHY NOT"), rows, none)


def _told(found: ServedAdapter) -> dict[str, object]:
    return {**dataclasses.asdict(found), "served": found.served}


COMMANDS = {"adapters": adapters}
