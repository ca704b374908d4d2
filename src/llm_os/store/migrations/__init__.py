"""Forward-only numbered migrations."""
