"""A chat model is tuned on real instructions through the real kernel, and what was made can be talked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(900)]

TUNES = """
import json, sys
import llm_os, openai
model = llm_os.load_model("smollm2")
train_data, test_data = llm_os.load_data(sys.argv[1], limit=48)
options = dict(epochs=2, batch_size=4, max_length=128, validation=test_data, early_stopping=2)
result = model.train(train_data, method="lora", merge=False, **options)
adapter, parent = model.version, model.lineage.parent
text = model.generate("What is the opposite of hot?", max_tokens=24)
stream = list(model.generate("What is the opposite of hot?", max_tokens=24, stream=True))
again = model.merge()
deployment = again.deploy("assistant")
client = openai.OpenAI(base_url=deployment.url, api_key=deployment.key)
messages = [{"role": "user", "content": "What is the opposite of hot?"}]
answer = client.chat.completions.create(model="assistant", messages=messages, max_tokens=24, temperature=0)
print(json.dumps({
    "history": [dict(epoch) for epoch in result.history], "adapter": adapter, "parent": parent, "text": text,
    "stream": stream, "merged": again.version, "answer": answer.choices[0].message.content,
    "usage": answer.usage.completion_tokens, "task": again.task, "format": again.describe()["format"],
}))
"""


def test_instructions_are_learnt_and_the_result_is_chatted_with(
    place: Place, stock: Callable[[str, Place], None], demo_data: Callable[[str], Path]
) -> None:
    stock("smollm2", place)
    seen: dict[str, Any] = place.last(TUNES, str(demo_data("alpaca_en_demo")))
    held_out = [epoch["validation_loss"] for epoch in seen["history"]]
    assert held_out[1] < held_out[0]
    assert seen["adapter"] == "smollm2-alpaca_en_demo@1"
    assert seen["parent"] == "smollm2-float@1"
    assert (seen["merged"], seen["task"], seen["format"]) == (
        "smollm2-alpaca_en_demo-merged@1",
        "text-generation",
        "safetensors",
    )
    assert "cold" in seen["text"]
    assert "".join(seen["stream"]) == seen["text"]
    assert len(seen["stream"]) > 2
    assert seen["answer"] == seen["text"]
    assert 0 < seen["usage"] <= 24
