"""Whether a host name means this machine, for all who ask or are asked over the network; looks no name up."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=256)  # every request of the gateway asks, nearly always for the same name
def is_loopback(host: str) -> bool:
    """Whether a host name, without port, means this machine."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
