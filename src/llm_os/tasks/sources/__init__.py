"""Bringing models in: fetch a source, verify it, lay it out as a model folder."""
