"""State in SQL, artifacts by content, leases, events. Decides nothing."""
