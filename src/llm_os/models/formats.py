"""What is this folder? Reads headers of safetensors and GGUF, refuses pickle; imports no framework."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from llm_os.errors import BrokenWeightsError, ModelError, NotFoundError, UnsafeWeightsError, UnsupportedModelError
from llm_os.models import remote, settings
from llm_os.spec.base import Json

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".model_state"}
PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64", "I8": "int8", "U8": "int8"}
FLOATS = {"F64", "F32", "F16", "BF16", "I8", "U8"}
ADAPTER = "adapter_model.safetensors"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
"""How an adapter that was trained here names its base."""
ADAPTER_TASKS = {
    "CAUSAL_LM": "text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "FEATURE_EXTRACTION": "feature-extraction",
}
"""peft's names of tasks -> ours."""
GGUF_PRECISIONS = (("Q4", "int4"), ("Q8_0", "int8"))
"""What the name of a GGUF file says of its weights, as llama.cpp's tools write it."""
MOST_HEADER = 100 * 2**20
MOST_STRING = 64 * 2**20
MOST_ITEMS = 10_000_000


def inspect(folder: Path) -> dict[str, Json]:
    """Facts of a model folder, a GGUF file, or a folder that says which server has the model.

    They are format, precision, task, architecture, parameters, labels and sizes, and settings of generation.

    Raises:
        NotFoundError: nothing there.
        UnsafeWeightsError: pickled weights only. BrokenWeightsError: truncated or damaged weights.
        ModelError: config or tokenizer missing or unreadable. UnsupportedModelError: no weights we know.
    """
    if not folder.exists():
        raise NotFoundError(f"There is no model at '{folder}'.", hint="Check the path.")
    if folder.is_file():
        return _single_file(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    gguf = [name for name in names if name.endswith(".gguf")]
    tensors = [name for name in names if name.endswith(".safetensors")]
    if remote.FILE in names and not gguf and not tensors:
        return remote.facts(folder)
    if gguf and not tensors:
        if len(gguf) > 1:
            raise ModelError(
                f"'{folder.name}' holds {len(gguf)} GGUF files: {', '.join(gguf)}.", hint="Give the path of one."
            )
        return {**read_gguf(folder / gguf[0]), **_generation(folder)}
    if not tensors:
        pickled = [name for name in names if Path(name).suffix in PICKLED]
        if pickled:
            raise refuse_pickle(folder / pickled[0])
        raise UnsupportedModelError(
            f"'{folder}' holds no weights in safetensors or GGUF.",
            hint="A model folder has config.json, tokenizer.json and model.safetensors, or one .gguf file.",
        )
    return _transformers_folder(folder, tensors)


def refuse_pickle(path: Path) -> UnsafeWeightsError:
    """The one answer to pickled weights, with the cure."""
    return UnsafeWeightsError(
        f"'{path.name}' is a pickle: opening it could run any program on this machine, so it is never opened.",
        hint="Ask its makers for safetensors, or convert it where you trust it: "
        "load it there and call model.save_pretrained(folder, safe_serialization=True).",
    )


def _single_file(path: Path) -> dict[str, Json]:
    if path.suffix == ".gguf":
        return read_gguf(path)
    if path.suffix in PICKLED:
        raise refuse_pickle(path)
    raise UnsupportedModelError(
        f"'{path.name}' is no model we can load by itself.", hint="Give a model folder, or a .gguf file."
    )


def _transformers_folder(folder: Path, tensors: list[str]) -> dict[str, Json]:
    if ADAPTER in tensors:
        return _adapter(folder)
    config = _json(folder, "config.json")
    if not ((folder / "tokenizer.json").exists() or (folder / "vocab.txt").exists()):
        raise ModelError(
            f"'{folder.name}' has no tokenizer (tokenizer.json).", hint="Save the tokenizer beside the weights."
        )
    parameters, dtypes = 0, set()
    for name in tensors:
        count, seen = read_safetensors(folder / name)
        parameters += count
        dtypes |= seen & FLOATS  # position ids are integers and say nothing
    architecture = (config.get("architectures") or [config.get("model_type", "unknown")])[0]
    task = _task(folder, architecture, config)
    labels = config.get("id2label") if task.endswith("classification") else None
    return {
        "format": "safetensors",
        "precision": PRECISIONS.get(sorted(dtypes)[0], "fp32") if len(dtypes) == 1 else "mixed",
        "task": task,
        "architecture": architecture,
        "parameters": parameters,
        "labels": [labels[key] for key in sorted(labels, key=int)] if labels else None,
        "context_length": _context_length(config),
        "hidden_size": _number(config, "hidden_size"),
        "layers": _number(config, "layers"),
        "heads": _number(config, "heads"),
        "kv_heads": config.get("num_key_value_heads") or _number(config, "heads"),
        "vocabulary": config.get("vocab_size", 0),
        "chat_template": _chat_template(folder),
        **(_generation(folder) if task == "text-generation" else {}),
    }


def _generation(folder: Path) -> dict[str, Json]:
    """How the model wants to be asked, where it says so."""
    told = settings.read(folder).told()
    return {"generation": told} if told else {}


def _chat_template(folder: Path) -> bool:
    """Whether its tokenizer knows how a chat is written."""
    if (folder / "chat_template.jinja").exists():
        return True
    return (folder / "tokenizer_config.json").exists() and "chat_template" in _json(folder, "tokenizer_config.json")


def _adapter(folder: Path) -> dict[str, Json]:
    """Facts of an adapter in peft's form: it runs only together with its base."""
    config = _json(folder, "adapter_config.json")
    count, dtypes = read_safetensors(folder / ADAPTER)
    base = config.get("base_model_name_or_path")
    known: dict[str, Json] = {"base": base} if isinstance(base, str) and _DIGEST.fullmatch(base) else {}
    method = "dora" if config.get("use_dora") else str(config.get("peft_type", "unknown")).lower()
    return {
        "format": "adapter",
        "precision": PRECISIONS.get(sorted(dtypes)[0], "fp32") if len(dtypes) == 1 else "mixed",
        "task": ADAPTER_TASKS.get(str(config.get("task_type")), "unknown"),
        "architecture": str(config.get("peft_type", "unknown")),
        "parameters": count,
        "labels": None,
        "context_length": 0,
        "hidden_size": 0,
        "layers": 0,
        "chat_template": _chat_template(folder),
        "adapter": {"method": method, "rank": config.get("r", 0), "alpha": config.get("lora_alpha", 0)},
        **known,
    }


TASKS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("EncoderDecoderModel", "text2text-generation"),
    ("MTModel", "text2text-generation"),
)
"""How the name of an architecture ends -> what it does; anything else is an encoder without a head."""
NAMES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "d_model", "n_embd", "dim"),
    "layers": ("num_hidden_layers", "num_layers", "encoder_layers", "n_layer", "n_layers"),
    "heads": ("num_attention_heads", "num_heads", "encoder_attention_heads", "n_head", "n_heads"),
    "context_length": ("max_position_embeddings", "n_positions", "max_sequence_length"),
}
"""What one architecture calls so, another calls otherwise."""
OFFSET = frozenset({"roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "longformer", "mpnet"})
"""Families whose first positions belong to padding: two fewer tokens fit than their configuration says."""


def _task(folder: Path, architecture: str, config: Mapping[str, Any]) -> str:
    found = next((task for ending, task in TASKS if architecture.endswith(ending)), "feature-extraction")
    if found == "text-classification" and config.get("problem_type") == "multi_label_classification":
        return "multi-label-classification"
    if found == "feature-extraction" and (folder / "modules.json").exists():
        return "sentence-similarity"
    return found


def _number(config: Mapping[str, Any], what: str, default: int = 0) -> int:
    return next((int(config[name]) for name in NAMES[what] if isinstance(config.get(name), int)), default)


def _context_length(config: Mapping[str, Any]) -> int:
    most = _number(config, "context_length", 512)
    return most - 2 if config.get("model_type") in OFFSET else most


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((folder / name).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"'{folder.name}' has no {name}.", hint="A model folder must hold it.") from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{name} of '{folder.name}' cannot be read: {error}.", hint="Copy the model again.") from error
    if not isinstance(data, dict):
        raise ModelError(f"{name} of '{folder.name}' is no JSON object.", hint="Copy the model again.")
    return data


def read_safetensors(path: Path) -> tuple[int, set[str]]:
    """(number of values, their types) from the header alone.

    Source: the format's description, https://huggingface.co/docs/safetensors: 8 bytes of header length, JSON, data.
    Raises BrokenWeightsError naming what does not fit.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MOST_HEADER, max(0, size - 8)):
            raise _broken(path, f"its header would be {length} bytes, the file has {size}")
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            count = sum(_product(entry["shape"]) for entry in tensors.values())
            dtypes = {str(entry["dtype"]) for entry in tensors.values()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise _broken(path, "its header is damaged") from error
    if 8 + length + end != size:
        raise _broken(path, f"{8 + length + end} bytes were written, {size} are there")
    return count, dtypes


def _broken(path: Path, why: str) -> BrokenWeightsError:
    return BrokenWeightsError(f"The weights '{path.name}' are broken: {why}.", hint="Copy or download the model again.")


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product


def gguf_metadata(path: Path) -> dict[str, Any]:
    """Everything that the header of a GGUF file says beside its tensors. Raises BrokenWeightsError."""
    try:
        with path.open("rb") as file:
            magic, version, _, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in {2, 3} or pairs > MOST_ITEMS:
                raise ValueError("it does not begin like a GGUF file")
            return dict(_gguf_pair(file) for _ in range(pairs))
    except (struct.error, ValueError, EOFError, UnicodeDecodeError, MemoryError) as error:
        raise _broken(path, str(error) or "it ends too early") from error


def read_gguf(path: Path) -> dict[str, Json]:
    """Facts from the header of a GGUF file (versions 2 and 3).

    Source: the format's description in ggml, docs/gguf.md. Raises BrokenWeightsError.
    """
    try:
        with path.open("rb") as file:
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version not in {2, 3} or tensors > MOST_ITEMS or pairs > MOST_ITEMS:
                raise ValueError("it does not begin like a GGUF file")
            fields = dict(_gguf_pair(file) for _ in range(pairs))
            parameters, end = _gguf_tensors(file, tensors, int(fields.get("general.alignment", 32)))
    except (struct.error, ValueError, EOFError, UnicodeDecodeError, MemoryError) as error:
        raise _broken(path, str(error) or "it ends too early") from error
    if path.stat().st_size < end:
        raise _broken(path, f"at least {end} bytes were written, {path.stat().st_size} are there")
    arch = str(fields.get("general.architecture", "unknown"))
    return {
        "format": "gguf",
        "precision": next((kind for mark, kind in GGUF_PRECISIONS if mark in path.name.upper()), "mixed"),
        "task": "text-generation",
        "architecture": arch,
        "parameters": parameters,
        "labels": None,
        "context_length": int(fields.get(f"{arch}.context_length", 0)),
        "hidden_size": int(fields.get(f"{arch}.embedding_length", 0)),
        "layers": int(fields.get(f"{arch}.block_count", 0)),
        "heads": int(fields.get(f"{arch}.attention.head_count", 0)),
        "kv_heads": int(fields.get(f"{arch}.attention.head_count_kv", 0)),
        "vocabulary": len(fields.get("tokenizer.ggml.tokens", ())),
        "chat_template": "tokenizer.chat_template" in fields,
        "file": path.name,
    }


_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _read(file: BinaryIO, code: str) -> Any:
    size = struct.calcsize("<" + code)
    return struct.unpack("<" + code, file.read(size))[0]


def _gguf_string(file: BinaryIO) -> str:
    length = _read(file, "Q")
    if length > MOST_STRING:
        raise ValueError("a text in its header is impossibly long")
    data = file.read(length)
    if len(data) != length:
        raise EOFError("it ends within its header")
    return data.decode("utf-8", errors="replace")


def _gguf_value(file: BinaryIO, kind: int) -> Any:
    if kind in _SCALARS:
        return _read(file, _SCALARS[kind])
    if kind == 8:
        return _gguf_string(file)
    if kind == 9:
        inner, count = _read(file, "I"), _read(file, "Q")
        if count > MOST_ITEMS:
            raise ValueError("a list in its header is impossibly long")
        return [_gguf_value(file, inner) for _ in range(count)]
    raise ValueError(f"its header holds an unknown type {kind}")


def _gguf_pair(file: BinaryIO) -> tuple[str, Any]:
    name = _gguf_string(file)
    return name, _gguf_value(file, _read(file, "I"))


def _gguf_tensors(file: BinaryIO, count: int, alignment: int) -> tuple[int, int]:
    """(parameters, a lower bound of the file's size): the last tensor's size is not counted."""
    parameters, last = 0, 0
    for _ in range(count):
        _gguf_string(file)
        shape = [_read(file, "Q") for _ in range(_read(file, "I"))]
        _read(file, "I")
        last = max(last, _read(file, "Q"))
        parameters += _product(shape)
    start = -(-file.tell() // alignment) * alignment
    return parameters, start + last + 1
