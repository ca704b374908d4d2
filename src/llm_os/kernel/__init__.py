"""Makes what is equal to what was asked; the only writer. Never imports an ML framework or an engine."""
