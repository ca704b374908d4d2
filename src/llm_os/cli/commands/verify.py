"""verify: does a deployment still say what was evaluated, and are the bytes of a version those that were stored?"""

from __future__ import annotations

import click

from llm_os.cli.link import looking
from llm_os.cli.render import as_json_option, print_json
from llm_os.client.transport import TYPED
from llm_os.client.verification import verify_deployment, verify_model
from llm_os.errors import NotFoundError, from_dict
from llm_os.session import connect
from llm_os.spec.deployments import Deployment
from llm_os.spec.verification import ModelVerification, ReplicaVerification, Verification


@click.command(epilog="Example: llm-os verify chat; llm-os verify smollm2@1")
@click.argument("name")
@as_json_option
def verify(name: str, as_json: bool) -> int:
    """Compare a deployment with PyTorch again, or read a model version again. Ends with 1 where something is wrong."""
    transport = looking()
    if TYPED.fullmatch(name) and "@" not in name:
        try:
            transport.call("GET", f"/v1/deployments/{name}", Deployment)
        except NotFoundError as unknown:
            return _of_model(_version(name, unknown), as_json=as_json)
        found = verify_deployment(connect(), name)
        if as_json:
            print_json({**found.model_dump(mode="json"), "agrees": found.agrees})
        else:
            _tell(found)
        return 0 if found.agrees else 1
    return _of_model(verify_model(transport, name), as_json=as_json)


def _version(name: str, unknown: NotFoundError) -> ModelVerification:
    try:
        return verify_model(looking(), name)
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no deployment and no model '{name}'.", hint=unknown.hint or error.hint
        ) from error


def _tell(found: Verification) -> None:
    verdict = "says what" if found.agrees else "does not say what"
    print(f"{found.deployment} ({found.engine}) {verdict} {found.version} says in PyTorch.")
    for replica in found.replicas:
        with_it = f" ({replica.engine})" if replica.engine and replica.engine != found.engine else ""
        print(f"{replica.attempt}{with_it}: {_figures(replica)}")
        for behind, expected, got in replica.differences:
            print(f"  behind {behind!r} it says {got!r} instead of {expected!r}")


def _figures(replica: ReplicaVerification) -> str:
    if replica.error is not None:
        return from_dict(replica.error).message
    if replica.parity is None:
        return "it told nothing"
    complaints = "".join(f"\n  {one}" for one in replica.parity.complaints)
    return f"{replica.parity.sentence}.{complaints}"


def _of_model(found: ModelVerification, *, as_json: bool) -> int:
    if as_json:
        print_json({**found.model_dump(mode="json"), "whole": found.whole})
    elif found.whole:
        print(f"{found.version} is whole: {found.files} files, {found.size / 1e6:,.1f} MB, {found.digest}.")
    else:
        print(f"{found.version} is broken ({found.digest}):")
        for file in found.broken:
            print(f"  {file.path} {file.problem}.")
        print("Fetch or make it anew; what was made of it before is not touched.")
    return 0 if found.whole else 1


COMMANDS = {"verify": verify}
