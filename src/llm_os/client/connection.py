"""One script's connection: the transport, and the session whose lease is renewed as long as the script lives."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path

from llm_os.client.start import ensure_kernel
from llm_os.client.transport import Transport
from llm_os.errors import LLMOSError, NotFoundError, UnavailableError
from llm_os.spec import api
from llm_os.spec.resources import Caps, Resources
from llm_os.spec.sessions import Session

GATEWAY_SECONDS = 30.0


class Connection:
    """Opens its session at the first use.

    Args:
        home, socket: of the kernel.
        name: what `llm-os ps` shows for this script.
        ttl: seconds without a renewal after which the session has expired.
        idle_after: seconds after which a private replica ends.
        ephemeral: whether a kernel that has to be started ends with its last work.
        calibrate: whether engines are measured before a deployment for which nobody named one.
    """

    def __init__(
        self,
        home: Path,
        socket: Path,
        *,
        name: str,
        ttl: float,
        idle_after: float,
        ephemeral: bool = True,
        calibrate: bool = True,
    ) -> None:
        self.home = home
        self.idle_after = idle_after
        self.calibrate = calibrate
        self._ephemeral = ephemeral
        self._name, self._ttl = name, ttl
        self._socket = socket
        self._session: Session | None = None
        self._caps = Caps()
        self._lock = threading.RLock()
        self._end = threading.Event()
        self.transport = Transport(socket, self.revive)

    def revive(self) -> None:
        """Start the kernel of this home unless it runs. Raises KernelUnavailableError."""
        ensure_kernel(self.home, self._socket, ephemeral=self._ephemeral)

    @property
    def session(self) -> str:
        """Id of the open session."""
        with self._lock:
            if self._session is None:
                self._open()
                threading.Thread(target=self._renew, name="llm-os-lease", daemon=True).start()
            assert self._session is not None  # noqa: S101 - _open sets it or raises
            return self._session.id

    def _open(self) -> None:
        self.revive()
        request = api.OpenSession(name=self._name, ttl=self._ttl)
        self._session = self.transport.call("POST", "/v1/sessions", Session, body=request)
        if self._caps != Caps():
            self.set_caps(self._caps, strict=False)

    def _renew(self) -> None:
        while not self._end.wait(self._ttl / 3):
            with self._lock:
                if self._session is None:
                    return
                try:
                    self.transport.call("POST", f"/v1/sessions/{self._session.id}/renew", Session)
                except NotFoundError:
                    print("llm-os: this script's session had expired; a new one was opened.", file=sys.stderr)
                    with contextlib.suppress(LLMOSError):
                        self._open()
                except LLMOSError:
                    continue  # the kernel is away; the next turn brings it back

    def set_caps(self, caps: Caps, *, strict: bool) -> Resources:
        """Raises CapacityError when `strict` and something is missing."""
        answer = self.transport.call(
            "PUT", f"/v1/sessions/{self.session}/caps", Resources, body=api.SetCaps(caps=caps, strict=strict)
        )
        self._caps = caps
        return answer

    def resources(self) -> Resources:
        return self.transport.call("GET", "/v1/resources", Resources, params={"session": self.session})

    def gateway(self) -> str:
        """OpenAI base URL. Waits for a gateway that starts. Raises UnavailableError."""
        until = time.monotonic() + GATEWAY_SECONDS
        while time.monotonic() < until:
            status = self.transport.call("GET", "/v1/status", api.KernelStatus)
            if status.gateway:
                return status.gateway
            time.sleep(0.1)
        why = self.transport.call("GET", "/v1/why/gateway", api.Why)
        raise UnavailableError(f"The gateway does not answer: {why.sentence}", hint="See `llm-os why gateway`.")

    def close(self) -> api.SessionEnd:
        """End the session; says what ended with it and what goes on."""
        self._end.set()
        with self._lock:
            if self._session is None:
                return api.SessionEnd()
            session, self._session = self._session, None
            return self.transport.call("DELETE", f"/v1/sessions/{session.id}", api.SessionEnd)
