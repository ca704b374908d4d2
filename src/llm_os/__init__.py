"""LLM OS (大语言模型操作系统): the whole life of language models on the machines you have."""
