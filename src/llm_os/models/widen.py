"""Writes GGUF weights in 8 bits where an engine would round them once more, or cannot read them; knows no engine.

Some quantizations store a block as `scale * q + minimum`. openvino-genai makes `scale * (q - zero point)` of that, with
a whole zero point, which moves every weight of a block by up to half a step: SmolLM2 in Q4_1 then said something else
at 28 of 100 places. As `Q8_0` (one scale a block, no minimum) the same weights pass exactly through its reader, and
their own error is 16 times smaller than that of 4 bits. llama.cpp reads prompts in `Q8_0` faster than in some smaller
types, whose blocks it has no fast way for.

Other types its reader does not know: Qwen2.5's small models have `Q5_0` in files that are named Q4_K_M. A block of it
is a scale and 32 whole numbers, as in `Q8_0`, so that it is copied to the last bit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llm_os.errors import UnavailableError
from llm_os.models.gguf_writing import copy_header

log = logging.getLogger("llm_os.worker")

WITH_MINIMUM = frozenset({"Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K"})
"""Types whose blocks have a minimum (ggml's names)."""
UNREAD = frozenset({"Q5_0", "Q3_K", "IQ4_NL", "IQ4_XS"})
"""Types that openvino-genai's reader ends at ("gguf_tensor_to_f16 failed")."""
BELOW_8 = WITH_MINIMUM | UNREAD | {"Q4_0", "Q6_K"}
"""All common types of fewer than 8 bits."""
KEPT_FOR = 14 * 24 * 3600.0
"""Seconds for which a file is kept that no replica has used."""
HALF_MADE_FOR = 3600.0
"""Seconds after which a file that nobody has finished is somebody's who was killed."""
FORM = 2
"""Of what is written: files of another one are not taken."""
GROWTH = 1.9
"""8.5 bits a weight instead of 4.5 or 5, at most."""


def in_8_bits(path: Path, attempt: Path, digest: str, types: Collection[str] = WITH_MINIMUM | UNREAD) -> Path:
    """A file whose tensors of these types are `Q8_0`; the file itself where it has none.

    In a home it is kept for the replicas that follow; elsewhere it goes with the attempt.

    Args:
        attempt: the worker's folder, in a home below `run/attempts`.
        digest: of the model.

    Raises:
        UnavailableError: see `widen`.
    """
    runs = next((above.parent for above in attempt.parents if above.name == "attempts"), None)
    folder = attempt / "scratch" if runs is None else runs / "widened"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    form = f"{FORM}-all" if frozenset(types) >= BELOW_8 else f"{FORM}"
    kept = folder / f"{digest.replace(':', '-')}-{form}.gguf"
    with contextlib.suppress(FileNotFoundError):
        os.utime(kept)  # it is used
        return kept
    for old in folder.glob("*.gguf*"):
        with contextlib.suppress(FileNotFoundError):  # another worker cleans, too
            if time.time() - old.stat().st_mtime > (KEPT_FOR if old.suffix == ".gguf" else HALF_MADE_FOR):
                old.unlink()
    beside = folder / f"{kept.name}.{os.getpid()}"
    try:
        if not (tensors := widen(path, beside, types)):
            return path
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(kept)
    finally:
        beside.unlink(missing_ok=True)
    log.info("%d tensors are served in 8 bits", tensors)
    return kept


def widen(source: Path, target: Path, types: Collection[str] = WITH_MINIMUM | UNREAD) -> int:
    """Copy a GGUF file with its tensors of `types` as `Q8_0`; how many there were; 0: nothing is written.

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
    many = sum(tensor.tensor_type.name in types for tensor in reader.tensors)
    if not many:
        return 0
    writer = gguf.GGUFWriter(str(target), reader.fields["general.architecture"].contents())
    copy_header(reader, writer)
    for tensor in reader.tensors:
        shape, raw = tuple(tensor.data.shape), tensor.tensor_type
        if raw.name in types:
            values = tuple(int(n) for n in reversed(tensor.shape))
            shape, raw = gguf.quant_shape_to_byte_shape(values, wide), wide
        writer.add_tensor_info(tensor.name, shape, tensor.data.dtype, _bytes(shape, tensor.data.dtype), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:
        data: Any = tensor.data
        if tensor.tensor_type.name == "Q5_0" and "Q5_0" in types:
            data = _five_as_eight(data)
        elif tensor.tensor_type.name in types:
            data = gguf.quants.quantize(gguf.quants.dequantize(data, tensor.tensor_type), wide)
        writer.write_tensor_data(data)
    writer.close()
    return many


def _five_as_eight(data: Any) -> Any:
    """Rows of `Q5_0` as `Q8_0`, exactly: a block is `scale * (q - 16)`, with 4 bits of each q, and its fifth beside.

    Source: ggml's `block_q5_0` (scale fp16, 32 fifth bits, 32 low halves: 22 bytes), `block_q8_0` (34 bytes).
    """
    import numpy

    blocks = data.reshape(-1, 22)
    fifth = numpy.unpackbits(blocks[:, 2:6], axis=1, bitorder="little")
    low = numpy.concatenate([blocks[:, 6:] & 15, blocks[:, 6:] >> 4], axis=1)
    whole = numpy.empty((len(blocks), 34), dtype=numpy.uint8)
    whole[:, :2] = blocks[:, :2]
    whole[:, 2:] = ((low | (fifth << 4)).astype(numpy.int8) - 16).view(numpy.uint8)
    return whole.reshape(*data.shape[:-1], -1)


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    size = int(dtype.itemsize)
    for count in shape:
        size *= int(count)
    return size
