"""Tasks that try out how a model is served best."""
