"""Formats of files: one file each; every one yields numbered rows."""
