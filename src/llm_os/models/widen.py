"""Writes GGUF weights in 8 bits where an engine would round their 4-bit form once more; must not know an engine.

Some quantizations store a block as `scale * q + minimum`. openvino-genai makes `scale * (q - zero point)` of that, with
a whole zero point, which moves every weight of a block by up to half a step: SmolLM2 in Q4_1 then said something else
at 28 of 100 places. As `Q8_0` (one scale a block, no minimum) the same weights pass exactly through its reader, and
their own error is 16 times smaller than that of 4 bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_os.errors import UnavailableError

WITH_MINIMUM = frozenset({"Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K"})
"""Types whose blocks have a minimum (ggml's names)."""
GROWTH = 1.9
"""8.5 bits a weight instead of 4.5 or 5, at most."""


def widen(source: Path, target: Path) -> int:
    """Copy a GGUF file with its tensors of `WITH_MINIMUM` as `Q8_0`; how many there were; 0: nothing is written.

    One tensor is in memory at a time.

    Raises:
        UnavailableError: the package gguf is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise UnavailableError(
            "The package gguf is not installed, which reads the weights.", hint="pip install 'llm-os[openvino]'"
        ) from error

    reader = gguf.GGUFReader(str(source))
    wide = gguf.GGMLQuantizationType.Q8_0
    many = sum(tensor.tensor_type.name in WITH_MINIMUM for tensor in reader.tensors)
    if not many:
        return 0
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":  # the writer's own
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = int(gguf.LlamaFileType.MOSTLY_Q8_0) if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        shape, raw = tuple(tensor.data.shape), tensor.tensor_type
        if raw.name in WITH_MINIMUM:
            values = tuple(int(n) for n in reversed(tensor.shape))
            shape, raw = gguf.quant_shape_to_byte_shape(values, wide), wide
        writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, _bytes(shape, tensor.data.dtype), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        data: Any = tensor.data
        if tensor.tensor_type.name in WITH_MINIMUM:
            data = gguf.quants.quantize(gguf.quants.dequantize(data, tensor.tensor_type), wide)
        writer.write_tensor_data(data)
    writer.close()
    return many


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    size = int(dtype.itemsize)
    for count in shape:
        size *= int(count)
    return size
