"""The handle of a served model, and how one is made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, overload

from pydantic import BaseModel

from llm_os.client.adapters import DeploymentAdapters, fused
from llm_os.client.answers import Prediction, Prompt, answer, embeddings, predictions
from llm_os.client.calibrations import calibrate_for_update
from llm_os.client.checks import checked
from llm_os.client.connection import Connection
from llm_os.client.gateway import Gateway
from llm_os.client.members import changed, named
from llm_os.client.references import ensure_for_update
from llm_os.client.rollouts import rollout_of, rollout_steps
from llm_os.client.verification import verify_deployment
from llm_os.client.waiting import Starting, interrupted, update_goes_on
from llm_os.errors import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RolloutError,
    UnavailableError,
    from_dict,
)
from llm_os.spec import api
from llm_os.spec.deployments import Deployment as DeploymentRecord
from llm_os.spec.deployments import DeploymentSpec, DeploymentState, Phase, Rollout, UpdatePolicy
from llm_os.spec.parity import Parity
from llm_os.spec.verification import Verification

READY_SECONDS = 600.0
"""Seconds without a sign of life in a start: a large model loads for minutes."""


class Deployment:
    """A served model. `url` and `key` work with any OpenAI client."""

    def __init__(self, connection: Connection, name: str, url: str, key: str, version: str) -> None:
        self._connection = connection
        self.name = name
        self.url = url
        """OpenAI base URL, such as `http://127.0.0.1:7601/v1`."""
        self.key = key
        """A key of its own; shown nowhere else."""
        self.version = version
        self._gateway = Gateway(url, key, name)

    @overload
    def predict(self, text_or_texts: str) -> Prediction: ...  # type: ignore[overload-overlap] # str is a Sequence[str]

    @overload
    def predict(self, text_or_texts: Sequence[str]) -> list[Prediction]: ...

    def predict(self, text_or_texts: str | Sequence[str]) -> Prediction | list[Prediction]:
        """Classify one text, or several in one request."""
        with self._explained():
            return predictions(self._gateway, text_or_texts)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text."""
        with self._explained():
            return embeddings(self._gateway, texts)

    @overload
    def chat(
        self,
        prompt_or_messages: Prompt,
        max_tokens: int = 256,
        stream: Literal[False] = False,
        *,
        adapter: str | None = None,
    ) -> str: ...

    @overload
    def chat(
        self, prompt_or_messages: Prompt, max_tokens: int = 256, *, stream: Literal[True], adapter: str | None = None
    ) -> Iterator[str]: ...

    def chat(
        self, prompt_or_messages: Prompt, max_tokens: int = 256, stream: bool = False, *, adapter: str | None = None
    ) -> str | Iterator[str]:
        """One answer; with `stream=True` its pieces as they come.

        Args:
            adapter: name of one of `adapters`, which answers instead of the model alone.
        """
        gateway = Gateway(self.url, self.key, f"{self.name}:{adapter}") if adapter else self._gateway
        with self._explained():
            found = answer(gateway, prompt_or_messages, max_tokens, stream=stream)
        return found if isinstance(found, str) else self._pieces(found)

    def _pieces(self, found: Iterator[str]) -> Iterator[str]:
        with self._explained():
            yield from found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """The gateway forgets the key of what has ended; here it is known why."""
        try:
            yield
        except (AuthenticationError, NotFoundError) as error:
            if (state := self.state) == DeploymentState.READY.value:
                raise
            raise UnavailableError(f"{self.name} is {state}.", hint="Deploy the model again.") from error

    @property
    def _record(self) -> DeploymentRecord:
        return self._connection.transport.call("GET", f"/v1/deployments/{self.name}", DeploymentRecord)

    @property
    def state(self) -> str:
        """`pending`, `starting`, `ready`, `asleep`, `stopping`, `stopped` or `failed`, as of now."""
        return self._record.state.value

    @property
    def parity(self) -> Parity | None:
        """How far its engine agrees with PyTorch, of several the one that agrees least; None: nobody compared them."""
        return self._record.parity

    @property
    def engine(self) -> str:
        """Name of the engine that serves it now; the first, where several stand side by side."""
        return self._record.engine

    @property
    def because(self) -> str:
        """Why this engine with these options, with figures where engines were measured; empty: somebody named it."""
        return self._record.because

    @property
    def parities(self) -> Mapping[str, Parity | None]:
        """How far they agree by engine, where several stand side by side; `openvino 2`: the same with other options."""
        record = self._record
        found: dict[str, Parity | None] = {}
        for member in record.history[-1].members if record.history else ():
            again = sum(name.partition(" ")[0] == member.engine for name in found)
            found[f"{member.engine} {again + 1}" if again else member.engine] = member.parity
        return found

    def verify(self) -> Verification:
        """Compare its replicas with PyTorch again, as they serve now; what came out stays with the revision.

        Returns:
            Figures and differences of each replica; `agrees` says whether all of them keep the limits.

        Raises:
            ConflictError: no replica answers. UnavailableError: one does not come to an end.
        """
        return verify_deployment(self._connection, self.name)

    def update(
        self,
        model: str | None = None,
        *,
        engine: str | Sequence[str] | None = None,
        wait: bool = True,
        policy: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Rollout:
        """Serve another version, engine or options under the same name, without a request that fails.

        Args:
            model: `card@number`, or `card@alias` to follow it; None: the same. An adapter is served
                merged into its base.
            engine: one, or several whose replicas stand side by side; None: the same.
            wait: until it has taken over, was taken back, or is tried until it is promoted; else return at once.
            policy: what differs from the deployment's `UpdatePolicy`: `canary`, `bake` and so on.
            options: of the engine.

        Raises:
            RolloutError: it was taken back; the old version goes on serving.
            ConflictError: another update is under way.
        """
        if policy is not None and not isinstance(policy, Mapping):
            raise InvalidInputError(f"policy is no {type(policy).__name__}.", hint='Such as policy={"bake": "1m"}.')
        checked(api.UpdateDeployment, {"model": model}, "An update")
        known = self._record
        usual = known.spec.update.model_dump()
        whole = checked(UpdatePolicy, {**usual, **policy}, "An update") if policy is not None else None
        engines = changed(engine, options, known.engines)
        model = fused(self._connection, model, known.version, named(engines))
        request = checked(api.UpdateDeployment, {"model": model, "policy": whole, **engines}, "An update")
        ensure_for_update(self._connection, known, request)
        calibrate_for_update(self._connection, known, request)
        record = self._change("update", request)
        if not wait:
            return rollout_of(record)
        with interrupted(update_goes_on(self.name)):
            return self._followed(record)

    @property
    def adapters(self) -> DeploymentAdapters:
        """Adapters beside its model, by name; `add` and `remove` change them while it serves."""
        return DeploymentAdapters(self._connection.transport, self.name)

    def promote(self) -> None:
        """Let the version that is being tried take over."""
        self._change("promote")

    def rollback(self, *, wait: bool = True) -> Rollout:
        """Take an update back, or go to the version before."""
        record = self._change("rollback")
        return self._followed(record) if wait and record.updating else rollout_of(record)

    def scale(
        self,
        replicas: int | None = None,
        *,
        least: int | None = None,
        most: int | None = None,
        first_token: float | str | None = None,
        tokens_in_flight: float | None = None,
    ) -> None:
        """Have so many replicas, or as many between `least` and `most` as requests need. `least=0`: it may sleep.

        Args:
            first_token: objective, with `most`: seconds (or "500ms") within which 95 of 100 streams shall begin.
            tokens_in_flight: with `most`: tokens still to read and to write that one replica shall have.
        """
        scaling: dict[str, Any] | None = None
        objectives = {"first_token": first_token, "tokens_in_flight": tokens_in_flight}
        asked = {name: value for name, value in objectives.items() if value is not None}
        if asked and most is None:
            raise InvalidInputError(
                f"{next(iter(asked))} says when more replicas come, not how many.", hint="Give most=4."
            )
        if least is not None or most is not None:
            least = 1 if least is None else least
            scaling = {"least": least, "most": max(1, least) if most is None else most, **asked}
        body = {"replicas": replicas, "scaling": scaling}
        self._change("scale", checked(api.ScaleDeployment, body, "Scaling"))

    def _change(self, verb: str, body: BaseModel | None = None) -> DeploymentRecord:
        path = f"/v1/deployments/{self.name}/{verb}"
        return self._connection.transport.call("POST", path, DeploymentRecord, body=body)

    def _followed(self, record: DeploymentRecord) -> Rollout:
        target = rollout_of(record).target.number
        for record in rollout_steps(self._connection.transport, self.name, Starting(self.name)):
            self.version, tried = record.version, record.rollout
            if tried is not None and tried.phase is Phase.CANARY and tried.policy.bake is None:
                return tried  # until somebody promotes it
        rollout = rollout_of(record)
        if record.state.ended or record.state is DeploymentState.STOPPING:
            raise ConflictError(f"{self.name} was ended while it was updated.", hint="Deploy the model again.")
        if rollout.target.number != target or rollout.phase is Phase.ROLLED_BACK:
            raise RolloutError(
                f"{self.name} stays with {record.version}: {rollout.message}.",
                hint=f"'llm-os why {self.name}' says more.",
                details={"version": rollout.target.version},
            )
        return rollout

    def stop(self) -> None:
        """End it. Running answers get a moment to finish. Calling it twice is fine."""
        self._connection.transport.call("POST", f"/v1/deployments/{self.name}/stop", DeploymentRecord)

    def __repr__(self) -> str:
        return f"<Deployment {self.name}: {self.version} at {self.url}>"


def check(connection: Connection, spec: DeploymentSpec) -> None:
    """Raises what `deploy` would be refused with, before work is done for it; nothing changes."""
    request = api.CreateDeployment(spec=spec, session=connection.session, only_check=True)
    connection.transport.call("POST", "/v1/deployments", api.CreatedDeployment, body=request)


def deploy(connection: Connection, spec: DeploymentSpec, *, keep: bool = False, private: bool = False) -> Deployment:
    """Create (or, for a private one, find) a deployment and wait until it answers.

    Ctrl-C ends the waiting, not the deployment: it says so, and how to end that.

    Raises:
        ConflictError: the name is taken. UnavailableError, CapacityError, ...: why it cannot be served.
    """
    request = api.CreateDeployment(spec=spec, session=connection.session, keep=keep, private=private)
    created = connection.transport.call("POST", "/v1/deployments", api.CreatedDeployment, body=request)
    name = spec.name
    if private:
        record = wait_ready(connection, created.deployment)
    else:
        goes_on = f"{name} goes on starting. End it with: llm-os stop {name}"
        if keep:
            goes_on += f"; make a key for it with: llm-os keys create KEY --only {name}"
        with interrupted(goes_on):
            record = wait_ready(connection, created.deployment)
    return Deployment(connection, record.spec.name, created.url or connection.gateway(), created.key, record.version)


def wait_ready(connection: Connection, record: DeploymentRecord) -> DeploymentRecord:
    """Raises what it failed with; UnavailableError after ten minutes without a sign of life, with the reason."""
    starting = Starting(record.spec.name)
    try:
        return _wait_ready(connection, record, starting)
    finally:
        starting.close()


def _wait_ready(connection: Connection, record: DeploymentRecord, starting: Starting) -> DeploymentRecord:
    until = time.monotonic() + READY_SECONDS
    while record.state is not DeploymentState.READY:
        if starting.look(record):
            until = time.monotonic() + READY_SECONDS
        if record.state is DeploymentState.FAILED and record.error is not None:
            raise from_dict(record.error)
        if record.state in {DeploymentState.STOPPING, DeploymentState.STOPPED}:
            raise ConflictError(f"{record.spec.name} was ended while it started.", hint="Deploy it again.")
        if time.monotonic() > until:
            why = connection.transport.call("GET", f"/v1/why/{record.id}", api.Why)
            raise UnavailableError(f"{record.spec.name} is not ready yet: {why.sentence}", hint="It goes on starting.")
        params: dict[str, Any] = {"state": record.state.value, "wait": 5}
        path = f"/v1/deployments/{record.id}"
        record = connection.transport.call("GET", path, DeploymentRecord, params=params)
    return record
