"""Messages become the text that a template makes of them, and templates do nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import DataError, InvalidOptionError, ModelError, UnsupportedModelError

from .stepping import Stepping

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHAT = [{"messages": [{"role": "user", "content": "Hi <b>"}, {"role": "assistant", "content": "你好"}], "id": 7}]
TEXT = "<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n你好<|im_end|>\n"


def run(folder: Path, rows: list[dict[str, Any]] = CHAT, **options: Any) -> list[dict[str, Any]]:
    return Stepping.at(folder, kind="chat").run("chat_format", rows, **options)


def model(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_messages_become_one_text_and_other_columns_stay(tmp_path: Path) -> None:
    assert run(tmp_path, template=CHATML) == [{"text": TEXT, "id": 7}]
    assert run(tmp_path, template=CHATML, add_generation_prompt=True)[0]["text"].endswith("<|im_start|>assistant\n")


def test_the_template_of_a_model_is_read_with_its_tokens(tmp_path: Path) -> None:
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    folder = model(tmp_path / "m", chat_template=template, bos_token="<s>", eos_token={"content": "</s>"})
    assert Stepping.at(tmp_path, kind="chat", tokenizer=folder).run("chat_format", CHAT, model="m@1")[0]["text"] == (
        "<s>Hi <b></s>"
    )


def test_a_file_holds_a_template(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(CHATML)
    assert run(tmp_path, template=str(tmp_path / "own.jinja"))[0]["text"] == TEXT
    with pytest.raises(DataError, match="no chat template"):
        run(tmp_path, template="none.jinja")


@pytest.mark.parametrize(
    ("template", "kind", "said"),
    [
        ("{% for %}", ModelError, "broken in line 1"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", ModelError, "not allowed"),
        ("{{ messages.append(1) }}", ModelError, "not allowed"),
        ("{{ raise_exception('roles must alternate') }}", DataError, "refuses the messages: roles must alternate"),
        ("{{ strftime_now('%d %B') }}", DataError, "writes today's date"),
    ],
)
def test_what_a_template_must_not_do_is_refused(
    tmp_path: Path, template: str, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        run(tmp_path, template=template)


def test_a_fixed_date_makes_the_text_the_same_tomorrow(tmp_path: Path) -> None:
    assert run(tmp_path, template="{{ strftime_now('%d.%m.%Y') }}", date="2026-01-31")[0]["text"] == "31.01.2026"


def test_json_in_a_template_is_not_escaped_as_html(tmp_path: Path) -> None:
    assert run(tmp_path, template="{{ messages[0].content | tojson }}")[0]["text"] == '"Hi <b>"'


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOptionError, match="needs `model` or `template`"):
        run(tmp_path)
    with pytest.raises(DataError, match="no messages to format"):
        run(tmp_path, [{"text": "a"}], template=CHATML)
    with pytest.raises(UnsupportedModelError, match="'m' was not given"):
        Stepping.at(tmp_path, kind="chat").run("chat_format", CHAT, model="m")
    with pytest.raises(ModelError, match="no chat template"):
        Stepping.at(tmp_path, tokenizer=model(tmp_path / "bare")).run("chat_format", CHAT, model="bare")
