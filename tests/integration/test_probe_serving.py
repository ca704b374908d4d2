"""A chat model becomes a classifier by its head alone, and is judged, kept, served and loaded elsewhere as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_os.models.formats import inspect
from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600)]

PROBES = """
import json, sys, urllib.request
import llm_os
train_data, test_data = llm_os.load_data("sentic_data", limit=240)
asked = dict(method="probe", layers=6, prompt=" This feels")
made = {}
for name, more in {"plain": {}, "wide": {"ngrams": 2}}.items():
    model = llm_os.load_model("smollm2")
    model.train(train_data, name=name, **asked, **more)
    judged = model.evaluate(test_data)
    said = model.predict(["A wonderful, touching film.", "Awful and boring."])
    made[name] = {"accuracy": judged.accuracy, "said": [str(one) for one in said]}
    model.save(sys.argv[1] + "/" + name)
served = llm_os.load_model("wide").deploy("mood")
request = urllib.request.Request(
    served.url.removesuffix("/v1") + "/classify",
    data=json.dumps({"model": "mood", "input": "Awful and boring."}).encode(),
    headers={"authorization": f"Bearer {served.key}", "content-type": "application/json"},
)
with urllib.request.urlopen(request, timeout=60) as reply:
    made["answer"] = json.load(reply)["data"][0]
again = llm_os.load_model(sys.argv[1] + "/wide")
made["again"] = [str(one) for one in again.predict(["A wonderful, touching film.", "Awful and boring."])]
try:
    llm_os.load_model("smollm2").train(train_data, method="probe", ema=0.9)
except llm_os.errors.InvalidOptionError as error:
    made["refused"] = str(error)
print(json.dumps(made, default=str))
"""


def test_a_head_on_a_chat_model_is_a_classifier_like_any_other(
    tmp_path: Path, place: Place, stock: Callable[[str, Place], None]
) -> None:
    stock("smollm2", place)
    made = place.last(PROBES, str(tmp_path))
    assert "'ema' means nothing for method='probe'" in made["refused"]
    for name in ("plain", "wide"):
        assert made[name]["accuracy"] > 0.55  # 48 texts
    assert made["again"] == made["wide"]["said"]
    assert f"{made['answer']['label']} ({made['answer']['score']:.3f})" == made["wide"]["said"][1]

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folders = {name: config.parent for name in ("plain", "wide") for config in (tmp_path / name).rglob("config.json")}
    found = [inspect(folders[name]) for name in ("plain", "wide")]
    assert [(facts["architecture"], facts["layers"]) for facts in found] == [
        ("LlamaForSequenceClassification", 6),
        ("WideForSequenceClassification", 6),
    ]
    folder = folders["plain"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("A fine film.")["input_ids"]) == "A fine film. This feels"
    assert (model.config.num_hidden_layers, model.config.id2label) == (6, {0: "negative", 1: "positive"})
