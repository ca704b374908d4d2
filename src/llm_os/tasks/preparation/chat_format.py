"""Chat formatting: messages become one text by a chat template, as the model was taught on; rows become plain texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_os.errors import DataError, InvalidOptionError, UnsupportedModelError
from llm_os.models.templates import ChatTemplate, template_of
from llm_os.spec.base import Spec
from llm_os.tasks.preparation.step import Bench, Row, Step


class ChatFormatOptions(Spec):
    model: str | None = Field(default=None, examples=["smollm2"])
    """Model whose chat template is used, as in `load_model`."""
    template: str | None = None
    """A Jinja template instead of the model's: its text, or the path of a .jinja file."""
    add_generation_prompt: bool = False
    """End each text with what comes before an answer."""
    date: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\d$")
    """`YYYY-MM-DD` for templates that write today's date: data must be the same tomorrow."""


class ChatFormat(Step[ChatFormatOptions]):
    """The data set is then of the kind `text`. To learn from the answers alone, train on the chat data as it is."""

    Options = ChatFormatOptions
    makes = "text"

    def apply(self, rows: Iterator[Row], options: ChatFormatOptions, bench: Bench) -> Iterator[Row]:
        template = chosen(options, bench)
        for row in rows:
            messages: Any = row.get("messages")
            if not isinstance(messages, list):
                raise DataError(
                    "A row has no messages to format.",
                    hint="chat_format is for data of the kind chat: load_data(kind='chat').",
                )
            text = template.render(messages, add_generation_prompt=options.add_generation_prompt, date=options.date)
            yield {"text": text, **{name: value for name, value in row.items() if name not in ("messages", "text")}}


def chosen(options: ChatFormatOptions, bench: Bench) -> ChatTemplate:
    """The template asked for. Raises InvalidOptionError, UnsupportedModelError, ModelError."""
    given = None
    if bench.tokenizer is not None and (options.model is not None or options.template is None):
        if options.template is None:
            return template_of(bench.tokenizer)
        given = bench.tokenizer
    if options.template is None:
        if options.model is None:
            raise InvalidOptionError("chat_format needs `model` or `template`.", hint='For example model="smollm2".')
        raise UnsupportedModelError(
            f"The model '{options.model}' was not given to this job.",
            hint="Name it in load_data(steps=...) or prepare(...).",
        )
    text = options.template
    if text.endswith(".jinja") and "\n" not in text:
        path = Path(text).expanduser()
        if not path.is_file():
            raise DataError(f"There is no chat template '{text}'.", hint="Check the path.")
        text = path.read_text(encoding="utf-8")
    return ChatTemplate(text, template_of(given).tokens if given is not None else {})


PLUGIN = ChatFormat()
