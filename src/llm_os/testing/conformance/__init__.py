"""Suites that every plugin of a family passes."""
