"""Writes weights that were tuned from a GGUF file as GGUF again, for engines that read no other; knows no engine.

What is no weight is copied from the file that their line began with: it says what a transformers folder does not, above
all how its tokenizer cuts texts. Matrices become `Q8_0`: 8 bits and a scale for every 32 values. Names and the order of
rows are llama.cpp's (its `convert_hf_to_gguf.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_os.errors import UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.spec.base import Json

KINDS = ("llama", "qwen2", "qwen3")
"""Architectures that can be written."""
BLOCK = 32
"""Values that share a scale; rows of another length stay fp32."""
TEMPLATE = "tokenizer.chat_template"
NONE: Mapping[str, str] = MappingProxyType({})
FREE = ("rope_freqs.",)
"""Tensors of the parent that are no weights of the model: they are copied."""


@dataclass(frozen=True, slots=True)
class _Weight:
    """A tensor of a transformers folder.

    Attributes:
        name: there. read: its values, fp32; reads the file each time.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Any]


def write_gguf(source: Path, parent: Path, target: Path) -> dict[str, Json]:
    """Write the weights of `source` in the form of `parent` into the file `target`; its facts.

    One tensor is in memory at a time. The chat template is the folder's own, where it has one.

    Args:
        source: a transformers folder with safetensors. parent: a .gguf file, of the same vocabulary and sizes.

    Raises:
        UnsupportedModelError: the parent is of another architecture, vocabulary or size.
    """
    import gguf

    reader = gguf.GGUFReader(str(parent))
    kind = str(reader.fields["general.architecture"].contents())
    if kind not in KINDS:
        raise _other(parent, f"it is of the architecture {kind}; {', '.join(KINDS)} can be written")
    config = json.loads((source / "config.json").read_bytes())
    _check_words(source, parent, reader.fields["tokenizer.ggml.tokens"].contents())
    with _weights(source) as weights:
        placed = _placed(gguf, reader, parent, weights, config, kind)
        writer = gguf.GGUFWriter(str(target), kind)
        template = _template(source)
        copy_header(reader, writer, {} if template is None else {TEMPLATE: template})
        _describe(gguf, writer, placed)
        for place, weight in placed.items():
            values = weight.read() if isinstance(weight, _Weight) else weight.data
            if isinstance(weight, _Weight) and kind == "llama":
                values = _interleaved(place, values, config)
            wide = isinstance(weight, _Weight) and _in_8_bits(weight.shape)
            writer.write_tensor_data(gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0) if wide else values)
        writer.close()
    return inspect(target)


def copy_header(reader: Any, writer: Any, other: Mapping[str, str] = NONE) -> None:
    """All that a file says beside its tensors, which are `Q8_0` now; texts that are in `other` as they are there."""
    import gguf

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":  # the writer's own
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = int(gguf.LlamaFileType.MOSTLY_Q8_0) if field.name == "general.file_type" else field.contents()
        writer.add_key_value(field.name, other.get(field.name, value), kind, sub_type=inner)
    for name in other.keys() - reader.fields.keys():
        writer.add_string(name, other[name])


def _placed(
    gguf: Any, reader: Any, parent: Path, weights: Mapping[str, _Weight], config: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    """Names of the new file -> weights of the folder, or tensors of the parent that are none of the model's.

    Raises UnsupportedModelError where both do not have the same ones, in the same sizes.
    """
    (arch,) = (one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == kind)
    names = gguf.get_tensor_name_map(arch, int(config["num_hidden_layers"]))
    theirs = {one.name: one for one in reader.tensors}
    placed: dict[str, Any] = {}
    for weight in weights.values():
        place = names.get_name(weight.name, try_suffixes=(".weight", ".bias"))
        if place == "output.weight" and config.get("tie_word_embeddings"):
            continue
        shape = tuple(int(n) for n in reversed(theirs[place].shape)) if place in theirs else None
        if place is None or (shape is None and place != "output.weight"):
            raise _other(parent, f"it has nothing for '{weight.name}'")
        if shape not in (None, weight.shape):
            raise _other(parent, f"'{weight.name}' is {weight.shape}, and {shape} there")
        placed[place] = weight
    for name, one in theirs.items():
        if name not in placed and name.startswith(FREE):
            placed[name] = one
        elif name not in placed and name != "output.weight":
            raise _other(parent, f"there are no weights for its '{name}'")
    return placed


def _describe(gguf: Any, writer: Any, placed: Mapping[str, Any]) -> None:
    """Write the header: names, shapes and types of all tensors."""
    import numpy

    for place, weight in placed.items():
        if not isinstance(weight, _Weight):
            data = weight.data
            writer.add_tensor_info(place, data.shape, data.dtype, data.nbytes, raw_dtype=weight.tensor_type)
        elif _in_8_bits(weight.shape):
            shape = gguf.quant_shape_to_byte_shape(weight.shape, gguf.GGMLQuantizationType.Q8_0)
            size = int(numpy.prod(shape, dtype=numpy.int64))
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor_info(place, shape, numpy.dtype(numpy.uint8), size, raw_dtype=kind)
        else:
            size = 4 * int(numpy.prod(weight.shape, dtype=numpy.int64))
            writer.add_tensor_info(place, weight.shape, numpy.dtype(numpy.float32), size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _in_8_bits(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and shape[-1] % BLOCK == 0


def _interleaved(place: str, values: Any, config: Mapping[str, Any]) -> Any:
    """Rows of Llama's queries and keys in llama.cpp's order: of each head, first and second half take turns.

    transformers rotates halves of a head against each other, llama.cpp neighbours (Su et al. 2021, RoPE).
    """
    part = place.split(".")[2] if place.startswith("blk.") else ""
    heads = {
        "attn_q": int(config["num_attention_heads"]),
        "attn_k": int(config.get("num_key_value_heads") or config["num_attention_heads"]),
    }.get(part)
    if heads is None:
        return values
    rows = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return rows.swapaxes(1, 2).reshape(values.shape)


@contextmanager
def _weights(source: Path) -> Iterator[dict[str, _Weight]]:
    """Weights of all files of the folder, by name."""
    from safetensors import safe_open

    with ExitStack() as stack:
        found: dict[str, _Weight] = {}
        for file in sorted(source.glob("*.safetensors")):
            tensors: Any = stack.enter_context(safe_open(file, framework="pt"))  # numpy knows no bf16
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                shape = tuple(tensors.get_slice(name).get_shape())
                found[name] = _Weight(name, shape, partial(_values, tensors, name))
        yield found


def _values(tensors: Any, name: str) -> Any:
    return tensors.get_tensor(name).float().numpy()


def _template(source: Path) -> str | None:
    """The folder's own chat template, from either of the places where transformers has it."""
    alone, beside = source / "chat_template.jinja", source / "tokenizer_config.json"
    if alone.exists():
        return alone.read_text(encoding="utf-8")
    told = json.loads(beside.read_bytes()).get("chat_template") if beside.exists() else None
    if isinstance(told, list):  # several, by name
        told = next((one.get("template") for one in told if one.get("name") == "default"), None)
    return told if isinstance(told, str) else None


def _check_words(source: Path, parent: Path, theirs: list[str]) -> None:
    """Raises UnsupportedModelError where a token of the folder's tokenizer is another one in the parent."""
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    vocabulary = tokenizer["model"].get("vocab", {})
    ours = dict(vocabulary) if isinstance(vocabulary, dict) else {word: at for at, (word, _) in enumerate(vocabulary)}
    ours |= {one["content"]: one["id"] for one in tokenizer.get("added_tokens", ())}
    for word, token in ours.items():
        if token >= len(theirs) or theirs[token] != word:
            raise _other(parent, f"its vocabulary has no {word!r} as token {token}")


def _other(parent: Path, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"These weights cannot be written in the form of '{parent.name}': {why}.",
        hint="Give the GGUF model that they were tuned from (--base MODEL).",
    )
