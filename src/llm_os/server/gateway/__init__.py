"""OpenAI-compatible gateway, a process of its own."""
