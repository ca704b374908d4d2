"""Tasks for tests of the system itself; submitted only where LLM_OS_TESTING is set."""
