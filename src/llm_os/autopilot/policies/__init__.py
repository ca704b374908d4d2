"""Policies: pure functions from what was observed to what shall follow."""
