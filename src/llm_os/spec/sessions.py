"""Client leases: jobs and deployments belong to the session that made them, unless kept."""

from __future__ import annotations

from llm_os.spec.base import Record
from llm_os.spec.resources import Caps


class Session(Record):
    id: str
    name: str
    """What people see in `ps`: usually the script's file name."""
    caps: Caps = Caps()
    ttl: float = 15.0
    """Seconds that a renewal adds."""
    opened_at: float
    expires_at: float
    closed: bool = False
