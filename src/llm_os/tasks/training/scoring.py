"""How likely a language model finds given tokens, without ever holding the logits of all of them. Knows no data.

A vocabulary of 50,000 makes the logits of 8,000 tokens 1.6 GB, and training holds them three times. Here only targets
go through the head, in slices, and a slice is computed again in the backward pass (Chen et al. 2016, sublinear memory).
"""

from __future__ import annotations

import inspect
from typing import Any

from llm_os.memory.training import SLICE
from llm_os.tasks.training.examples import Batch, Forward

SAME = 1e-3
"""Largest difference of logits, as a share of the largest, with which the head alone counts as the model's own end."""
INPUTS = ("input_ids", "attention_mask", "position_ids")


class Scorer:
    """Negative log-likelihoods of target tokens.

    Args:
        model: a causal language model of transformers; adapters may be put into it later.
        at_once: targets that go through the head at once.
    """

    def __init__(self, model: Any, at_once: int = SLICE) -> None:
        self._model, self._at_once = model, at_once
        self._cheap = _ends_in_its_head(model)

    def __call__(self, forward: Forward, batch: Batch) -> Any:
        """float32 [targets], in the order of rows and places.

        Args:
            batch: `input_ids` and `targets`, a mask [rows, longest] of the tokens that shall be foretold.
        """
        import torch

        given = {name: batch[name] for name in INPUTS if name in batch}
        wanted = batch["targets"][:, 1:]
        if not self._cheap:
            logits = forward(**given, use_cache=False).logits
            device = logits.device
            tokens = batch["input_ids"][:, 1:][wanted].to(device)
            return torch.nn.functional.cross_entropy(
                logits[:, :-1][wanted.to(device)].float(), tokens, reduction="none"
            )
        out = forward(**given, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        hidden = out.hidden_states[-1]
        rows = hidden[:, :-1][wanted.to(hidden.device)]
        tokens = batch["input_ids"][:, 1:][wanted].to(hidden.device)
        half = out.logits.dtype == torch.bfloat16
        slices = zip(rows.split(self._at_once), tokens.split(self._at_once), strict=True)
        return torch.cat([self._slice(some, wanted, half) for some, wanted in slices])

    def _slice(self, rows: Any, tokens: Any, half: bool) -> Any:
        import torch
        from torch.utils.checkpoint import checkpoint

        head = self._model.get_output_embeddings()

        def losses(rows: Any) -> Any:
            with torch.autocast(rows.device.type, dtype=torch.bfloat16, enabled=half):
                logits = head(rows)
            return torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="none")

        if not torch.is_grad_enabled():
            return losses(rows)
        return checkpoint(losses, rows, use_reentrant=False, preserve_rng_state=False)


def _ends_in_its_head(model: Any) -> bool:
    """Whether the logits are the head's of the last hidden state, and nothing more (some models scale or cap them)."""
    import torch

    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return False
    was = model.training
    model.eval()
    with torch.inference_mode():
        out = model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False, output_hidden_states=True)
        alone = model.get_output_embeddings()(out.hidden_states[-1])
    model.train(was)
    return alone.shape == out.logits.shape and bool((alone - out.logits).abs().max() <= SAME * out.logits.abs().max())
