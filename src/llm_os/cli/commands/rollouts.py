"""update, promote, rollback, scale: from one version of a deployment to the next, and how many replicas it has."""

from __future__ import annotations

from typing import Any

import click

from llm_os.cli.link import looking
from llm_os.cli.options import further, scaling_of, scaling_options
from llm_os.cli.render import as_json_option, print_json
from llm_os.client.adapters import fused
from llm_os.client.calibrations import calibrate_for_update
from llm_os.client.checks import checked
from llm_os.client.members import changed, named
from llm_os.client.references import ensure_for_update
from llm_os.client.rollouts import rollout_steps
from llm_os.client.transport import Transport, place
from llm_os.client.waiting import Starting, interrupted, update_goes_on
from llm_os.errors import ConflictError, InvalidInputError, RolloutError
from llm_os.session import connect
from llm_os.spec import api
from llm_os.spec.deployments import Deployment, DeploymentState, Phase, UpdatePolicy


def _percent(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """`5%` or `0.05`."""
    if value is None:
        return None
    try:
        share = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"'{value}' is no share; write 5% or 0.05.")
    return share


@click.command(epilog="Example: llm-os update chat smollm2@2 --canary 5% --bake 1m")
@click.argument("name")
@click.argument("model", required=False)
@click.option("--engine", "engines", multiple=True, help="Another engine, or several; the same if left out.")
@click.option("--option", "-o", "given", multiple=True, metavar="NAME=VALUE", help="An option of the engine.")
@click.option("--canary", callback=_percent, metavar="SHARE", help="Share of the requests it gets at first [1%].")
@click.option("--tenant", "tenants", multiple=True, help="A tenant whose requests all go to it at first.")
@click.option("--shadow", is_flag=True, help="It gets copies of requests at first; nobody sees its answers.")
@click.option("--bake", metavar="TIME", help="How long it must do well before it takes over [10s].")
@click.option("--until-promoted", is_flag=True, help="Try it until `llm-os promote`.")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@as_json_option
def update(
    name: str, model: str | None, engines: tuple[str, ...], given: tuple[str, ...], as_json: bool, **how: Any
) -> int:
    """Serve MODEL under the name of a deployment. The old version serves until the new one is warm and does well.

    An adapter is served merged into its base, as GGUF where that is what serves now.
    """
    if how["until_promoted"] and how["bake"] is not None:
        raise InvalidInputError("--bake and --until-promoted exclude each other.", hint="Leave one out.")
    transport, path = looking(), place("deployments", name, "deployment")
    known = transport.call("GET", path, Deployment)  # before an adapter is merged for what is not there
    policy = known.spec.update.model_dump()
    asked = {"canary": how["canary"], "tenants": how["tenants"] or None, "bake": how["bake"]}
    policy |= {key: value for key, value in asked.items() if value is not None}
    if how["until_promoted"]:
        policy["bake"] = None
    if how["shadow"]:
        policy["shadow"] = True
        policy["canary"] = 1.0 if how["canary"] is None else how["canary"]
    asked = changed(engines, further(given), known.engines)
    model = fused(connect(), model, known.version, named(asked)) if model is not None else None
    asked |= {"model": model, "policy": checked(UpdatePolicy, policy, "An update")}
    body = checked(api.UpdateDeployment, asked, "An update")
    if known.spec.check:
        ensure_for_update(connect(), known, body)
    calibrate_for_update(connect(), known, body)
    found = transport.call("POST", f"{path}/update", Deployment, body=body)
    with interrupted(update_goes_on(name)):
        return _told(transport, found, as_json=as_json, wait=not how["no_wait"])


@click.command(epilog="Example: llm-os promote chat")
@click.argument("name")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@as_json_option
def promote(name: str, no_wait: bool, as_json: bool) -> int:
    """Let the version of a deployment that is being tried take over."""
    transport = looking()
    found = transport.call("POST", f"{place('deployments', name, 'deployment')}/promote", Deployment)
    return _told(transport, found, as_json=as_json, wait=not no_wait)


@click.command(epilog="Example: llm-os rollback chat")
@click.argument("name")
@click.option("--no-wait", is_flag=True, help="Return at once.")
@as_json_option
def rollback(name: str, no_wait: bool, as_json: bool) -> int:
    """Take an update back that is under way, or go to the version before."""
    transport = looking()
    found = transport.call("POST", f"{place('deployments', name, 'deployment')}/rollback", Deployment)
    return _told(transport, found, as_json=as_json, wait=not no_wait, by_hand=True)


@click.command(epilog="Example: llm-os scale chat --least 1 --most 4 --first-token 0.5s")
@click.argument("name")
@click.argument("replicas", type=click.IntRange(1, 64), required=False)
@scaling_options
@as_json_option
def scale(name: str, replicas: int | None, as_json: bool, **given: Any) -> int:
    """Give a deployment so many replicas, or as many as requests need."""
    scaling = scaling_of(**given)
    if (replicas is None) is (scaling is None):
        raise InvalidInputError("Give a number, or --least and --most.", hint=f"Such as: llm-os scale {name} 2")
    body = {"replicas": replicas} if replicas is not None else {"scaling": scaling}
    path = f"{place('deployments', name, 'deployment')}/scale"
    found = looking().call("POST", path, Deployment, body=checked(api.ScaleDeployment, body, "Scaling"))
    if as_json:
        print_json(found)
    elif found.spec.scaling is None:
        each = " of each engine" if len(found.engines) > 1 else ""
        print(f"{name} shall have {found.wanted} replicas{each}.")
    else:
        print(f"{name} shall have between {found.spec.scaling.least} and {found.spec.scaling.most} replicas.")
    return 0


def _told(transport: Transport, found: Deployment, *, as_json: bool, wait: bool, by_hand: bool = False) -> int:
    """Show the phases of a rollout as they come; with `wait` until it has ended, or needs a person."""
    name, last, said = found.spec.name, found, ""
    for record in rollout_steps(transport, name, Starting(name, quiet=as_json)) if wait else [found]:
        rollout, last = record.rollout, record
        if rollout is not None and not as_json:
            line = f"{name} to {rollout.target.version}, {rollout.phase.value.replace('_', ' ')}: {rollout.message}."
            if line != said:
                print(line)
            said = line
        if rollout is not None and rollout.phase is Phase.CANARY and rollout.policy.bake is None:
            if not as_json:
                print(f"Take it over with: llm-os promote {name}\nTake it back with: llm-os rollback {name}")
            break
    if as_json:
        print_json(last)
    if last.state.ended or last.state is DeploymentState.STOPPING:
        raise ConflictError(f"{name} was ended while it was updated.", hint="Deploy the model again.")
    ended = last.rollout
    if wait and not by_hand and ended is not None and ended.phase is Phase.ROLLED_BACK:
        raise RolloutError(
            f"{name} stays with {last.version}: {ended.message}.", hint=f"'llm-os events' and 'llm-os logs {name}'."
        )
    return 0


COMMANDS = {"update": update, "promote": promote, "rollback": rollback, "scale": scale}
