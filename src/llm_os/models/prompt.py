"""Puts the same words behind every text that a tokenizer reads; they become part of it and are saved with it."""

from __future__ import annotations

import tempfile
from typing import Any

from llm_os.errors import InvalidOptionError, UnsupportedModelError

NAME = "prompt"
KEY = "llm_os_prompt"
"""Where the file of a tokenizer says what it puts behind every text."""
PROBE = "a"
"""A text by which a tokenizer shows what it does."""


def ask(tokenizer: Any, prompt: str, most: int) -> Any:
    """A tokenizer like this one that ends every text with the prompt; where a text is cut, it is cut before that.

    Args:
        prompt: empty: what the tokenizer asks already, if anything. most: tokens of a text and its prompt together.

    Raises:
        UnsupportedModelError: a tokenizer that cannot hold a prompt, or whose file would lose it.
        InvalidOptionError: the prompt leaves no room for a text, or the tokenizer has another one.
    """
    known = asked(tokenizer)
    if not prompt or prompt == known:
        return tokenizer
    if known:
        raise InvalidOptionError(
            f"This model puts {known!r} behind every text already.",
            hint="Leave `prompt` out, or train the model it came from.",
            details={"option": NAME},
        )
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if 2 * len(ids) > most:
        raise InvalidOptionError(
            f"The prompt has {len(ids)} tokens; with its text it may have {most}.",
            hint="Take a shorter one, or a larger max_length.",
            details={"option": NAME},
        )
    return _with(tokenizer, prompt, ids)


def asked(tokenizer: Any) -> str:
    """What a tokenizer puts behind every text."""
    return str(getattr(tokenizer, "init_kwargs", {}).get(KEY) or "")


def tokens_of(tokenizer: Any) -> int:
    """How many tokens that is."""
    prompt = asked(tokenizer)
    return len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0


def _with(tokenizer: Any, prompt: str, ids: list[int]) -> Any:
    """The tokenizer as its file will be read with the prompt in it: some classes build their post-processor anew."""
    from tokenizers.processors import Sequence, TemplateProcessing
    from transformers import AutoTokenizer

    plain = list(tokenizer(PROBE)["input_ids"])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        words = {"id": NAME, "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
        behind = TemplateProcessing(single=f"$A {NAME}", pair=f"$A $B:1 {NAME}", special_tokens=[words])
        before = backend.post_processor
        backend.post_processor = behind if before is None else Sequence([before, behind])
        tokenizer.init_kwargs[KEY] = prompt
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            again = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if list(again(PROBE)["input_ids"]) == [*plain, *ids] and asked(again) == prompt:
            return again
    raise UnsupportedModelError(
        f"{type(tokenizer).__name__} cannot hold a prompt: its file does not keep what is put behind a text.",
        hint="Leave `prompt` out, or take another model.",
    )
