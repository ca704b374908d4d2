"""The command `llm-os`; commands load lazily."""
