"""Chat templates give the text that transformers gives, from a folder or a GGUF file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from llm_os.errors import BrokenWeightsError, ModelError
from llm_os.models.templates import ChatTemplate, template_of

TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "zephyr": (
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
    ),
    "loops": (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "[{{ m.content | trim | tojson }}]{% endfor %}"
    ),
}
CHATS = [
    [{"role": "user", "content": " Is 3 < 4? "}, {"role": "assistant", "content": "Yes & <b>true</b>."}],
    [
        {"role": "system", "content": "简短。"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好！"},
    ],
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [False, True])
def test_the_text_is_that_of_transformers(name: str, prompt: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    for chat in CHATS:
        theirs = render_jinja_template(
            conversations=[chat], chat_template=TEMPLATES[name], add_generation_prompt=prompt, **tokens
        )
        ours = ChatTemplate(TEMPLATES[name], tokens).render(chat, add_generation_prompt=prompt)
        assert ours == theirs[0][0]
        assert chat[-1]["content"][:3] in ours


def gguf(path: Path, **fields: Any) -> Path:
    """A GGUF file of version 3 without tensors."""

    def text(value: str) -> bytes:
        data = value.encode()
        return struct.pack("<Q", len(data)) + data

    def value(given: Any) -> bytes:
        if isinstance(given, str):
            return struct.pack("<I", 8) + text(given)
        if isinstance(given, list):
            return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(text, given))
        return struct.pack("<II", 4, given)

    body = b"".join(text(name) + value(given) for name, given in fields.items())
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(fields)) + body)
    return path


def test_a_gguf_file_brings_its_template_and_tokens(tmp_path: Path) -> None:
    gguf(
        tmp_path / "m.gguf",
        **{
            "general.architecture": "llama",
            "tokenizer.chat_template": TEMPLATES["zephyr"],
            "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        },
    )
    template = template_of(tmp_path)
    assert template.tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert "Yes & <b>true</b>.</s>" in template.render(CHATS[0])


def test_a_file_beside_the_config_goes_first(tmp_path: Path) -> None:
    templates = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "old"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates, "bos_token": None}))
    assert template_of(tmp_path) == ChatTemplate("old", {})
    (tmp_path / "chat_template.jinja").write_text("new")
    assert template_of(tmp_path).text == "new"


def test_models_without_a_template_and_broken_files_are_named(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m.gguf", **{"general.architecture": "llama"})
    with pytest.raises(ModelError, match=r"'m\.gguf' has no chat template"):
        template_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BrokenWeightsError, match=r"'m\.gguf'"):
        template_of(tmp_path)
