"""keys: who may ask models, how much, and what each was served."""

from __future__ import annotations

from typing import Any

import click
from pydantic import RootModel

from llm_os.cli.link import looking
from llm_os.cli.render import ago, as_json_option, print_json, print_table
from llm_os.client.transport import place
from llm_os.spec import api
from llm_os.spec.quotas import Priority, Quota
from llm_os.spec.routing import Served

_LIMITS = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrent": "at once"}


@click.group(invoke_without_command=True, epilog="Example: llm-os keys create anna --tokens-per-minute 20000")
@as_json_option
@click.pass_context
def keys(ctx: click.Context, as_json: bool) -> int:
    """List keys; make, revoke them, and see what was served."""
    if ctx.invoked_subcommand is not None:
        return 0
    found = looking().call("GET", "/v1/keys", list[api.KeyInfo])
    if as_json:
        print_json(found)
        return 0
    rows = [
        (k.name, k.role, k.tenant, _only(k.deployments), _limits(k.quota), k.quota.priority, ago(k.created_at))
        for k in found
    ]
    columns = ("NAME", "ROLE", "TENANT", "MAY USE", "LIMITS", "PRIORITY", "MADE")
    print_table(columns, rows, "No keys but those of deployments, and admin.key: llm-os keys create NAME")
    return 0


@keys.command(epilog="Example: llm-os keys create ci --tenant build --priority batch --only chat")
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "monitor"]), default="user", show_default=True)
@click.option("--tenant", default="default", show_default=True, help="Whose tokens its use counts among.")
@click.option("--only", multiple=True, metavar="DEPLOYMENT", help="A deployment it may use; all, if left out.")
@click.option("--requests-per-minute", type=int)
@click.option("--tokens-per-minute", type=int, help="Of prompts and answers together.")
@click.option("--concurrent", type=int, help="Requests at the same time.")
@click.option("--share", type=float, default=1.0, show_default=True, help="Weight of the tenant where all are busy.")
@click.option(
    "--priority",
    type=click.Choice([str(one) for one in Priority]),
    default=str(Priority.INTERACTIVE),
    show_default=True,
    help="The most urgent class it may ask for.",
)
@click.option("--cache", is_flag=True, help="Keep deterministic answers for this tenant.")
@as_json_option
def create(name: str, role: str, tenant: str, only: tuple[str, ...], as_json: bool, **quota: object) -> int:
    """Make a key. It is shown once: only its hash is kept."""
    body = {"name": name, "role": role, "tenant": tenant, "deployments": only or None, "quota": quota}
    made = looking().call("POST", "/v1/keys", api.CreatedKey, body=RootModel[Any](body))  # checked by the kernel
    if as_json:
        print_json(made)
        return 0
    print(f"The key '{made.info.name}' of the tenant '{made.info.tenant}' may use {_only(made.info.deployments)}.")
    print(f"  Key  {made.key}   (shown once)")
    print(f"End it with: llm-os keys revoke {made.info.name}")
    return 0


@keys.command(epilog="Example: llm-os keys revoke anna")
@click.argument("name")
@as_json_option
def revoke(name: str, as_json: bool) -> int:
    """End a key. Requests under way go on."""
    gone = looking().call("DELETE", place("keys", name, "key"), api.KeyInfo)
    print_json(gone) if as_json else print(f"The key '{gone.name}' opens nothing any more.")
    return 0


@keys.command(epilog="Example: llm-os keys usage")
@as_json_option
def usage(as_json: bool) -> int:
    """What was served to whom since counting began; a key that is gone has no name."""
    transport = looking()
    found = transport.call("GET", "/v1/usage", list[Served])
    if as_json:
        print_json(found)
        return 0
    names = {key.id: key.name for key in transport.call("GET", "/v1/keys", list[api.KeyInfo])}
    rows = [
        (s.tenant, names.get(s.key, s.key), s.deployment, s.version, s.requests, s.prompt_tokens, s.completion_tokens)
        for s in found
    ]
    columns = ("TENANT", "KEY", "DEPLOYMENT", "VERSION", "REQUESTS", "TOKENS IN", "TOKENS OUT")
    print_table(columns, rows, "Nothing was served yet.")
    return 0


def _only(deployments: tuple[str, ...] | None) -> str:
    return "everything" if deployments is None else ", ".join(deployments) or "nothing"


def _limits(quota: Quota) -> str:
    given = [f"{getattr(quota, name)} {words}" for name, words in _LIMITS.items() if getattr(quota, name) is not None]
    given += ["cache"] if quota.cache else []
    return ", ".join(given) or "none"


COMMANDS = {"keys": keys}
