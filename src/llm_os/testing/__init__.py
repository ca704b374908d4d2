"""Public test kit: clock, factories, strategies, faults, simulator, conformance."""
