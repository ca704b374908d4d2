"""Python SDK over the management API. Imports nothing of ours but spec and errors."""
