"""Trains a LoRA adapter on a base of 4 or 8 bits a weight (QLoRA, Dettmers et al. 2023) with bitsandbytes, on CPU too.

It is the method for memory that holds the base in no other form, and slower than LoRA: each use of a weight
de-quantizes it. The adapter is saved alone; merging needs the float weights, so it is a job of its own.
"""

from __future__ import annotations

from typing import Literal

from llm_os.spec.units import format_bytes
from llm_os.tasks.applications import application
from llm_os.tasks.context import Context
from llm_os.tasks.training.adapters import AdapterMethod, AdapterOptions, tune


class QloraOptions(AdapterOptions):
    bits: Literal[4, 8] = 4
    """Bits of a weight of the base: 4 (NF4 in blocks of 64) or 8 (int8 by rows)."""
    merge: Literal[False] = False
    """Always false: merging needs the float weights, which is a job of its own (`model.merge()`)."""


class Qlora(AdapterMethod[QloraOptions]):
    Options = QloraOptions
    name = "training/qlora"
    weight_bytes = 1.6  # 4 bits in the linear layers, and embeddings in fp32; measured in docs/how-to/adapters.md

    def run(self, context: Context, options: QloraOptions) -> None:
        from llm_os.models.quantize import quantize

        found, prepared = application.prepare(context, options)
        before, after = quantize(prepared.model, options.bits)
        context.message(
            f"The base takes {format_bytes(after)} instead of {format_bytes(before)}: "
            f"its linear layers have {options.bits} bits a weight."
        )
        tune(context, options, found, prepared, method="qlora", more={"bits": options.bits})


PLUGIN = Qlora()
