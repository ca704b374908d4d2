"""Automated operations: policies look at what the system tells and propose syscalls; nothing here writes state."""
