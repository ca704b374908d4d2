"""Evaluation: one file per kind of task that is judged."""
