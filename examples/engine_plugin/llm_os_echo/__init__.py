"""An engine for LLM OS that says what it was told: the smallest one that keeps the whole contract."""
