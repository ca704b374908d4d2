"""Architectures from scratch: one file each."""
