"""Chat templates: messages as the one text that a model was taught on. Templates run in a sandbox; knows no data set.

Source: transformers, utils/chat_template_utils.py, whose settings of Jinja and whose functions templates rely on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from llm_os.errors import DataError, ModelError
from llm_os.models.formats import gguf_metadata


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja template and the special tokens it may name (`bos_token`, `eos_token`, ...)."""

    text: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False, date: str | None = None
    ) -> str:
        """The conversation as one text.

        Args:
            messages: each with `role` and `content`.
            add_generation_prompt: end with what comes before an answer.
            date: `YYYY-MM-DD` that templates which write today's date get.

        Raises:
            DataError: the template refuses these messages, or wants a date and has none.
            ModelError: it is no template, or it does what a template must not do.
        """
        from jinja2 import TemplateError
        from jinja2.exceptions import SecurityError, TemplateSyntaxError

        try:
            return str(
                _environment(date)
                .from_string(self.text)
                .render(messages=messages, add_generation_prompt=add_generation_prompt, **self.tokens)
            )
        except TemplateSyntaxError as error:
            raise ModelError(f"The chat template is broken in line {error.lineno}: {error.message}.") from error
        except SecurityError as error:
            raise ModelError(f"The chat template does what is not allowed: {error}.") from error
        except TemplateError as error:
            raise DataError(
                f"The chat template refuses the messages: {error}.", hint="Most want user and assistant to take turns."
            ) from error


def template_of(folder: Path) -> ChatTemplate:
    """The template of a model folder, also of one that holds a GGUF file. Raises ModelError where there is none."""
    gguf = sorted(folder.glob("*.gguf"))
    if gguf and not (folder / "tokenizer_config.json").exists():
        return _of_gguf(gguf[0])
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    text = config.get("chat_template")
    if isinstance(text, list):
        text = next((entry["template"] for entry in text if entry.get("name") == "default"), None)
    if (folder / "chat_template.jinja").exists():
        text = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if not text:
        raise ModelError("The model has no chat template.", hint="Give one: `template`, as text or as a .jinja file.")
    names = [name for name in config if name.endswith("_token")]
    tokens = {name: _token(config[name]) for name in names if config[name] is not None}
    return ChatTemplate(str(text), tokens)


def _token(value: Any) -> str:
    return str(value.get("content")) if isinstance(value, dict) else str(value)


def _of_gguf(path: Path) -> ChatTemplate:
    fields = gguf_metadata(path)
    text = fields.get("tokenizer.chat_template")
    if not text:
        raise ModelError(f"'{path.name}' has no chat template.", hint="Give one: `template`.")
    words = fields.get("tokenizer.ggml.tokens") or []
    tokens = {}
    for name, key in (("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")):
        number = fields.get(f"tokenizer.ggml.{key}")
        if isinstance(number, int) and number < len(words):
            tokens[name] = str(words[number])
    return ChatTemplate(str(text), tokens)


def _environment(date: str | None) -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _clock(date)
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """As transformers has it: Jinja's own would write `<` as an HTML escape."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _clock(date: str | None) -> Callable[[str], str]:
    def strftime_now(form: str) -> str:
        if date is None:
            raise DataError("The chat template writes today's date.", hint="Fix it: date='2026-01-31'.")
        return datetime.fromisoformat(date).strftime(form)

    return strftime_now
