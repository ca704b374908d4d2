"""How many bytes a model or a training needs, and who holds which. Pure."""
