"""One Settings class; every environment variable is read here and nowhere else."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from llm_os.spec.units import Bytes, Duration

SOCKET_PATH = 107
"""Bytes that the path of a Unix socket may have."""
LONGEST_SOCKET = len("/att-0123456789.sock") + 4
"""Bytes of the longest name of a socket, with some to spare."""


class Settings(BaseSettings):
    """Read from `LLM_OS_*` environment variables. At most 30 fields, each documented."""

    model_config = SettingsConfigDict(env_prefix="LLM_OS_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".llm-os")
    """Folder of state, artifacts, attempts and logs; mode 0700."""
    database: str | None = None
    """Database URL; none: SQLite in the home folder."""
    management_port: int = Field(default=7600, ge=0, le=65535)
    """TCP port of the management API on loopback; 0 picks a free one."""
    gateway_port: int = Field(default=7601, ge=0, le=65535)
    """TCP port of the gateway on loopback; 0 picks a free one, once."""
    gateway_cache: Bytes = 64 * 2**20
    """Bytes of answers that the gateway keeps for keys with `--cache`; 0: none."""
    cpus: float | None = Field(default=None, gt=0)
    """Cores this node grants; none: all there are."""
    memory: Bytes | None = None
    """Host memory this node grants; none: 90 % of what there is."""
    session_ttl: Duration = 15.0
    """Seconds without a renewal after which a session has expired."""
    linger: Duration = 10.0
    """Seconds an ephemeral kernel stays after the last session and the last work have ended."""
    sweep_every: Duration = 60.0
    """Seconds between sweeps for orphans."""
    private_idle_after: Duration = 60.0
    """Seconds without a request after which the replica behind `predict` and `generate` ends."""
    spare_for: Duration = 300.0
    """Seconds for which a process is kept ready after a training or evaluation; 0: none, and no gateway stands by."""
    calibrate: bool = True
    """Measure engines before a model is deployed for which nobody named one; once a model, machine and engine."""
    plugins: str = ""
    """Distributions, separated by commas, whose plugins are loaded beside our own."""
    alerts_every: Duration = 15.0
    """Seconds between looks at the metrics, for alerts; 0: nobody looks."""
    log_level: str = "INFO"
    """Level of the kernel's log in `logs/`."""
    traces: str | None = Field(default=None, pattern=r"^https?://[^\s/@]+(/[^\s@]*)?$")
    """Collector that the gateway sends traces to (OTLP over HTTP), such as `http://127.0.0.1:4318`; none: off."""
    log_prompts: bool = False
    """Write what was asked into the access log, up to 4,000 characters of each request. Off: never a word of it."""
    testing: bool = False
    """Register the fake device, engine and launcher plugins."""

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def attempts(self) -> Path:
        return self.run / "attempts"

    @property
    def jobs(self) -> Path:
        """Checkpoints by job: `run/jobs/<job>/checkpoints`."""
        return self.run / "jobs"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def admin_key(self) -> Path:
        return self.home / "admin.key"

    @property
    def alerts(self) -> Path:
        """Alert rules of this home, and where alerts go."""
        return self.home / "alerts.toml"

    @property
    def routes(self) -> Path:
        return self.run / "routes.json"

    @property
    def usage(self) -> Path:
        return self.run / "usage.json"

    @cached_property
    def runtime(self) -> Path:
        """Folder of Unix sockets, named by a hash of the home: the system takes paths of 107 bytes at most."""
        digest = hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12]
        bases = [os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), tempfile.gettempdir(), "/tmp"]  # noqa: S108
        folders = [Path(base) / f"llm-os-{os.getuid()}" / digest for base in bases]
        return next((f for f in folders if len(os.fsencode(f)) + LONGEST_SOCKET <= SOCKET_PATH), folders[-1])

    @property
    def socket(self) -> Path:
        """Unix socket of the management API."""
        return self.runtime / "kernel.sock"

    def replica_socket(self, attempt: str) -> Path:
        return self.runtime / f"{attempt}.sock"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home / 'state.db'}"
