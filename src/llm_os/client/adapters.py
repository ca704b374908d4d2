"""Adapters of a deployment, as a script or the command line sees them; and adapters that are served merged instead."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llm_os.client.checks import checked
from llm_os.client.connection import Connection
from llm_os.client.gguf import READERS, in_gguf
from llm_os.client.jobs import run
from llm_os.client.transport import Transport, place
from llm_os.errors import NotFoundError, UnavailableError, UnsupportedModelError
from llm_os.spec import api
from llm_os.spec.base import slug
from llm_os.spec.deployments import Deployment as DeploymentRecord
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

READY_SECONDS = 120.0
"""Seconds without a sign of life. Reading an adapter takes a second; a replica that starts takes its time first."""
LOOK_EVERY = 0.05
"""Seconds between two looks at the replicas."""


@dataclass(frozen=True, slots=True)
class ServedAdapter:
    """An adapter beside a deployment's model.

    Attributes:
        model: what requests name: `DEPLOYMENT:NAME`.
        version: `card@number`.
        replicas: that hold it, of those that are `ready`.
        failed: why one could not take it.
    """

    name: str
    model: str
    version: str
    replicas: int
    ready: int
    failed: str = ""

    @property
    def served(self) -> bool:
        """Every ready replica holds it."""
        return 0 < self.ready == self.replicas


def adapters_of(record: DeploymentRecord) -> list[ServedAdapter]:
    """By name."""
    ready = [replica for replica in record.replicas if replica.state == "ready"]
    found = []
    for name, version in sorted(record.spec.adapters.items()):
        failed = next((one.adapters_failed[name] for one in ready if name in one.adapters_failed), "")
        held = sum(one.adapters.get(name) == version for one in ready)
        found.append(ServedAdapter(name, f"{record.spec.name}:{name}", version, held, len(ready), failed))
    return found


def add(transport: Transport, name: str, request: api.AddAdapter, *, wait: bool = True) -> ServedAdapter:
    """Have a deployment carry an adapter; with `wait` until every ready replica holds it.

    Raises:
        UnavailableError: a replica cannot take it, or none is ready in time.
        What the kernel raises: another base, no room, the name is taken.
    """
    path = place("deployments", name, "deployment")
    before = transport.call("GET", path, DeploymentRecord)
    record = transport.call("POST", f"{path}/adapters", DeploymentRecord, body=request)
    known = before.spec.adapters
    called = request.name or next(
        (one for one, version in record.spec.adapters.items() if known.get(one) != version),
        request.version.partition("@")[0],
    )
    until, sign = time.monotonic() + READY_SECONDS, _sign_of_life(record)
    while True:
        found = next((one for one in adapters_of(record) if one.name == called), None)
        if found is None:
            raise UnavailableError(f"{name}:{called} was removed while it was added.", hint="Add it again.")
        if not wait or found.served or (not found.ready and record.state.value in {"asleep", "pending"}):
            return found
        if found.failed:
            raise UnavailableError(
                f"{name} cannot hold the adapter {found.version}: {found.failed}",
                hint=f"Remove it: llm-os adapters remove {name} {called}",
            )
        if time.monotonic() > until or record.state.ended:
            raise UnavailableError(
                f"{found.replicas} of {found.ready} replicas of {name} hold {found.version} after "
                f"{READY_SECONDS:.0f} s.",
                hint=f"'llm-os logs {name}' says more; it goes on.",
            )
        time.sleep(LOOK_EVERY)
        record = transport.call("GET", path, DeploymentRecord)
        if (newest := _sign_of_life(record)) > sign:
            until, sign = time.monotonic() + READY_SECONDS, newest


def _sign_of_life(record: DeploymentRecord) -> float:
    """When a replica that starts came a step further: one that is compared first takes minutes."""
    told = [replica.progress.get("at") for replica in record.replicas]
    return max((float(at) for at in told if isinstance(at, int | float)), default=0.0)


def remove(transport: Transport, name: str, adapter: str) -> DeploymentRecord:
    """Have a deployment carry it no more. Raises NotFoundError, ConflictError."""
    last = place("adapters", adapter, "adapter").removeprefix("/v1/")
    return transport.call("DELETE", f"{place('deployments', name, 'deployment')}/{last}", DeploymentRecord)


class DeploymentAdapters(Mapping[str, ServedAdapter]):
    """`deployment.adapters`: name -> adapter, as of now."""

    def __init__(self, transport: Transport, deployment: str) -> None:
        self._transport, self._deployment = transport, deployment

    def add(
        self, version: object, name: str | None = None, *, replace: bool = False, wait: bool = True
    ) -> ServedAdapter:
        """Serve an adapter of the deployment's base under `DEPLOYMENT:NAME`, without a restart.

        Args:
            version: `card@number`, `card` for its newest, or the model handle of an adapter.
            name: what requests call it; None: its card.
            replace: take the place of the one that has this name.
            wait: until every ready replica holds it.

        Raises:
            InvalidInputError: it is no adapter, or one of another base. ConflictError: the name is taken.
            CapacityError: there are too many, or its rank is too large. UnavailableError: a replica cannot take it.
        """
        body = {"version": getattr(version, "version", version), "name": name, "replace": replace}
        return add(self._transport, self._deployment, checked(api.AddAdapter, body, "An adapter"), wait=wait)

    def remove(self, name: str) -> None:
        """Serve it no more; answers that have begun end. Raises NotFoundError."""
        remove(self._transport, self._deployment, name)

    def _known(self) -> dict[str, ServedAdapter]:
        path = f"/v1/deployments/{self._deployment}"
        return {one.name: one for one in adapters_of(self._transport.call("GET", path, DeploymentRecord))}

    def __getitem__(self, name: str) -> ServedAdapter:
        return self._known()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known())

    def __len__(self) -> int:
        return len(self._known())


def fused(connection: Connection, model: str | None, now: str, engines: Sequence[str | None]) -> str | None:
    """What serves in the place of an adapter: its base with it merged, made at the first time; others as they are.

    Args:
        now: the version that is served.
        engines: that are named; None: those that serve it. Where they read GGUF, the merged one is written as that.
            Where none is named and it cannot be written, it stays in safetensors, for an engine that reads those.

    Raises:
        NotFoundError: there is no such model, or nobody knows its base, or for a named engine its GGUF model.
        UnsupportedModelError: for a named engine: it cannot be written as GGUF.
    """
    if model is None:
        return None
    version = connection.transport.call("GET", place("models", model, "model"), ModelVersion)
    if version.format != "adapter":
        return model
    served = connection.transport.call("GET", place("models", now, "model"), ModelVersion)
    whole = merged(connection, version, f"{version.card}-merged")
    named = [engine for engine in engines if engine is not None]
    if not (set(named) & READERS if named else served.format == "gguf"):
        return whole.ref
    try:
        return in_gguf(connection, whole).ref
    except (NotFoundError, UnsupportedModelError) as error:
        if named:
            raise
        print(f"{whole.ref} stays in safetensors: {error.message}", file=sys.stderr)
        return whole.ref


def merged(connection: Connection, adapter: ModelVersion, card: str, base: str | None = None) -> ModelVersion:
    """An adapter in the weights of its base, as a version of `card`; made once.

    Args:
        base: digest of the model it was trained on; None: the one recorded.
    """
    digest = base or adapter.meta.get("base")
    if not isinstance(digest, str):
        raise NotFoundError(
            f"It is not recorded on what {adapter.ref} was trained.", hint="Give base=model (--base MODEL)."
        )
    inputs = {"model": adapter.manifest, "base": digest}
    job = run(connection, JobSpec(task="adapters/merge", inputs=inputs, name=slug(card)), f"Merging {adapter.ref}")
    return connection.transport.call("GET", f"/v1/models/{job.result['version']}", ModelVersion)
