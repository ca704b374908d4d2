"""ps, jobs, logs, events, why, cancel: what runs, what happened, and why."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

import click

from llm_os.cli.link import looking
from llm_os.cli.options import labels_of
from llm_os.cli.render import ago, as_json_option, print_json, print_table
from llm_os.client.transport import Transport, place
from llm_os.client.watch import sentence
from llm_os.errors import NotFoundError
from llm_os.spec import api
from llm_os.spec.deployments import Deployment
from llm_os.spec.events import Event
from llm_os.spec.jobs import Job
from llm_os.spec.resources import Resources
from llm_os.spec.units import format_bytes

LIVE = ("running", "queued")
ALL = {"limit": 10_000}
EVENTS_PAGE = 500


@click.command(epilog="Example: llm-os ps --label team=search")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Only deployments labelled so; no jobs.")
@as_json_option
def ps(labels: tuple[str, ...], as_json: bool) -> int:
    """List jobs and deployments that live, and what each holds."""
    transport = looking()
    wanted = labels_of(labels)
    jobs = [
        job
        for state in (() if wanted else LIVE)
        for job in transport.call("GET", "/v1/jobs", list[Job], params={"state": state, **ALL})
    ]
    found = transport.call("GET", "/v1/deployments", list[Deployment])
    deployments = [one for one in found if wanted.items() <= one.spec.labels.items()]
    resources = transport.call("GET", "/v1/resources", Resources)
    if as_json:
        print_json({"jobs": jobs, "deployments": deployments, "resources": resources})
        return 0
    held: dict[str, tuple[float, int]] = {}  # a deployment holds what all of its replicas hold
    for holding in resources.in_use:
        cpus, memory = held.get(holding.owner, (0.0, 0))
        held[holding.owner] = (cpus + holding.cpus, memory + holding.memory)
    rows = []
    for name, what, state, detail in [
        *[(j.id, j.spec.task, j.state.value, sentence(j.progress) if j.progress else "") for j in jobs],
        *[(d.spec.name, f"{d.version} ({', '.join(d.engines)})", d.state.value, _now(d)) for d in deployments],
    ]:
        key = next((d.id for d in deployments if d.spec.name == name), name)
        share = f"{held[key][0]:g} CPU, {format_bytes(held[key][1])}" if key in held else "-"
        rows.append((name, what, state, share, detail))
    print_table(("NAME", "WHAT", "STATE", "HOLDS", "NOW"), rows, "Nothing runs.")
    free = resources.free
    print(f"\nFree: {free.cpus:g} of {resources.granted.cpus:g} CPUs, {format_bytes(free.memory)}.")
    return 0


def _now(deployment: Deployment) -> str:
    """Replicas, where there is not just the one, of each engine; what is told of a start; the update under way."""
    told = _replicas(deployment)
    told += [replica.doing for replica in deployment.replicas if replica.doing][:1]
    rollout = deployment.rollout
    if rollout is not None and deployment.updating:
        told.append(f"to {rollout.target.version}, {rollout.phase.value}: {rollout.message}")
    members = deployment.history[-1].members if deployment.history else ()
    for member in members:
        if member.parity is not None:
            told.append(f"{f'{member.engine} ' if len(members) > 1 else ''}as PyTorch: {member.parity.short}")
    return "; ".join(told)


def _replicas(deployment: Deployment) -> list[str]:
    engines = deployment.engines
    shall = deployment.shares(len(engines))
    if len(engines) == 1 or not any(shall):
        ready = sum(replica.state == "ready" for replica in deployment.replicas)
        return [] if ready == shall[-1] == 1 else [f"{ready} of {shall[-1]} replicas"]
    mine = [one for one in deployment.replicas if one.revision == deployment.revision and one.state == "ready"]
    told = []
    for member, (engine, number) in enumerate(zip(engines, shall, strict=True)):
        told.append(f"{sum(one.member == member for one in mine)} of {number} {engine}")
    return [", ".join(told)]


@click.command(epilog="Example: llm-os jobs --state failed")
@click.option("--state", type=click.Choice(["queued", "running", "succeeded", "failed", "cancelled"]))
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most this many, newest first."
)
@as_json_option
def jobs(state: str | None, limit: int, as_json: bool) -> int:
    """List jobs, ended ones too."""
    params: dict[str, str | int | float] = {"limit": limit, **({"state": state} if state else {})}
    found = looking().call("GET", "/v1/jobs", list[Job], params=params)
    if as_json:
        print_json(found)
        return 0
    rows = [
        (j.id, j.spec.task, j.state.value, ago(j.created_at), j.result.get("version") or (j.error or {}).get("message"))
        for j in found
    ]
    print_table(("JOB", "TASK", "STATE", "SUBMITTED", "RESULT"), rows, "There are no jobs yet.")
    return 0


@click.command(epilog="Example: llm-os logs job-7k2m9x4q1c")
@click.argument("name")
@click.option("--follow", "-f", is_flag=True, help="Go on until it ends.")
@as_json_option
def logs(name: str, follow: bool, as_json: bool) -> int:
    """Show the log of a job or deployment (or of the gateway)."""
    transport = looking()
    path = _log_path(transport, name)
    offset = 0
    text = ""
    while True:
        page = transport.call("GET", path, api.LogPage, params={"offset": offset})
        offset = page.next
        if as_json:
            text += page.text
        else:
            print(page.text, end="", flush=True)
        if not page.text and (page.ended or not follow):
            break
        if not page.text:
            time.sleep(0.5)
    if as_json:
        print_json({"name": name, "log": text})
    return 0


def _log_path(transport: Transport, name: str) -> str:
    try:
        transport.call("GET", job := place("jobs", name, "job or deployment"), Job)
    except NotFoundError:
        return f"{place('deployments', name, 'job or deployment')}/logs"
    return f"{job}/logs"


@click.command(epilog="Example: llm-os events --follow")
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--limit", type=click.IntRange(min=0), default=200, show_default=True, help="So many of the newest.")
@as_json_option
def events(follow: bool, limit: int, as_json: bool) -> int:
    """Show what happened, oldest first."""
    transport = looking()
    newest: deque[Event] = deque(maxlen=limit)
    since = 0
    while page := _events(transport, since, wait=0):
        since = page[-1].seq
        newest.extend(page)
    _print_events(newest, as_json=as_json)
    while follow:
        page = _events(transport, since, wait=20)
        since = page[-1].seq if page else since
        _print_events(page, as_json=as_json)
    return 0


def _events(transport: Transport, since: int, wait: int) -> list[Event]:
    params: dict[str, str | int | float] = {"since": since, "limit": EVENTS_PAGE, "wait": wait}
    return transport.call("GET", "/v1/events", list[Event], params=params)


def _print_events(found: Iterable[Event], *, as_json: bool) -> None:
    for event in found:
        if as_json:
            print(event.model_dump_json(), flush=True)
        else:
            at = time.strftime("%H:%M:%S", time.localtime(event.at))
            print(f"{at}  {event.kind.value:<22} {event.subject:<16} {event.message}", flush=True)


@click.command(epilog="Example: llm-os why job-7k2m9x4q1c")
@click.argument("name")
@as_json_option
def why(name: str, as_json: bool) -> int:
    """Say why something waits, runs, is slow or failed: one sentence, then what shows it."""
    found = looking().call("GET", place("why", name, "job or deployment"), api.Why)
    if as_json:
        print_json(found)
        return 0
    print(found.sentence)
    for fact in found.facts:
        print(f"  {fact}")
    for diagnosis in found.diagnoses:
        if not found.sentence.startswith(diagnosis.sentence):
            print(f"\n{diagnosis.sentence}")
        for line in diagnosis.evidence:
            print(f"  {line}")
        print(f"  Next: {diagnosis.next}")
    return 0


@click.command(epilog="Example: llm-os cancel job-7k2m9x4q1c")
@click.argument("job")
@as_json_option
def cancel(job: str, as_json: bool) -> int:
    """End a job. Its checkpoint stays whole."""
    found = looking().call("POST", f"{place('jobs', job, 'job')}/cancel", Job)
    if as_json:
        print_json(found)
    elif found.state.ended:
        print(f"{job} {'had ended before: it ' if not found.cancel_requested else ''}{found.state.value}.")
    else:
        print(f"{job} was asked to end.")
    return 0


COMMANDS = {"ps": ps, "jobs": jobs, "logs": logs, "events": events, "why": why, "cancel": cancel}
