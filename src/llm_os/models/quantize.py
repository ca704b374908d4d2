"""Puts the linear layers of a loaded model into 4 or 8 bits, in place, with bitsandbytes. Knows no training.

Source: Dettmers et al. 2023 (NF4, blocks of 64); Dettmers et al. 2022 (int8 by rows). Seen on CPU: bitsandbytes 0.50
has both; torchao 0.18 has int8 only, its 4-bit form asks for a kernel library that is not made for CPUs.
"""

from __future__ import annotations

import gc
from typing import Any, Literal

from llm_os.errors import UnavailableError


def quantize(model: Any, bits: Literal[4, 8]) -> tuple[int, int]:
    """(bytes of the weights before, after). Embeddings and the output head stay as they are.

    Raises:
        UnavailableError: bitsandbytes is not installed.
    """
    from torch import nn

    try:
        import bitsandbytes
    except ImportError as error:
        raise UnavailableError(
            "A base of 4 or 8 bits needs bitsandbytes.", hint="pip install 'llm-os[qlora]', or take method='lora'."
        ) from error
    before = _bytes(model)
    head = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not head:
                setattr(parent, name, _smaller(child, bits, bitsandbytes))
    for parameter in model.parameters():  # what was read is a view into the file: a copy lets the rest of it go
        if parameter.is_floating_point():
            parameter.data = parameter.data.clone()
    gc.collect()
    return before, _bytes(model)


def _smaller(layer: Any, bits: int, library: Any) -> Any:
    import torch

    given = {"bias": layer.bias is not None}
    if bits == 4:
        small = library.nn.Linear4bit(
            layer.in_features, layer.out_features, compute_dtype=torch.float32, quant_type="nf4", **given
        )
        small.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    else:
        small = library.nn.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=False, **given)
        small.weight = library.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    if layer.bias is not None:
        small.bias = torch.nn.Parameter(layer.bias.data, requires_grad=False)
    small.support_avx512bf16_for_cpu = False  # else a first pass without gradients would round the base once more
    return small.to(layer.weight.device)


def _bytes(model: Any) -> int:
    seen = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    return sum(seen.values())
