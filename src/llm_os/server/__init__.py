"""HTTP: the management API (inside the kernel process) and the gateway (its own process)."""
