"""Makes trainable float weights of a GGUF file; knows nothing of jobs. What is written is a plain transformers folder.

The weights are exactly what the file's quantization stands for (de-quantized to fp32), no better. The tokenizer and the
chat template are the file's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_os.errors import ModelError, UnsupportedModelError
from llm_os.models.formats import inspect
from llm_os.models.load import quiet
from llm_os.spec.base import Json


def gguf_to_safetensors(source: Path, into: Path) -> dict[str, Json]:
    """Write config, tokenizer, chat template and fp32 weights into the folder `into`; its facts.

    Args:
        source: a .gguf file, or a folder that holds one.

    Raises:
        BrokenWeightsError, ModelError: see `models.formats`.
        UnsupportedModelError: it is no GGUF, or of an architecture or a quantization that transformers cannot read.
    """
    facts = inspect(source)
    if facts["format"] != "gguf":
        raise UnsupportedModelError(f"This model is in {facts['format']} already.", hint="Train it as it is.")
    folder, name = (source, str(facts["file"])) if source.is_dir() else (source.parent, source.name)
    model, tokenizer = _open(folder, name)
    plain = _without_quantization(model)
    plain.save_pretrained(into)
    tokenizer.save_pretrained(into)
    return inspect(into)


def _open(folder: Path, name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    safe = {"gguf_file": name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **safe)
    except ImportError as error:
        raise ModelError(f"GGUF cannot be read: {error}", hint="pip install 'llm-os[train]'") from error
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"'{name}' cannot be turned into float weights: {error}",
            hint="Train its safetensors, if its makers have some.",
        ) from error
    return model, tokenizer


def _without_quantization(model: Any) -> Any:
    """The same weights in a model that may be saved: transformers refuses to save what it read from GGUF."""
    import torch
    from transformers import AutoModelForCausalLM

    known = model.config.to_dict()
    dropped = {"quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "dtype"}
    config = type(model.config)(**{name: value for name, value in known.items() if name not in dropped})
    with torch.device("meta"):  # no second copy in memory
        plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
