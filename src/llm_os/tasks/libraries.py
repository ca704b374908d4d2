"""Modules that tasks name in `preload`: they take seconds to load, and all tasks of a sort load them. Imports none."""

TRANSFORMERS = (
    "torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
)
"""Training and evaluating models in PyTorch."""
