"""Preparation steps: one file each; rows in, rows out, as streams."""
