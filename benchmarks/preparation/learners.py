"""Two small learners that show what a preparation does: TF-IDF with logistic regression, and a GRU from scratch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rows import Data, Row


def tfidf(
    train: Sequence[Row], test: Sequence[Row], *, analyzer: str = "word", balanced: bool = False
) -> tuple[float, float]:
    """(accuracy, macro-F1). `analyzer`: `word` (what spaces part, 1-2-grams) or `char` (1-3-grams)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    vectorizer = TfidfVectorizer(
        min_df=2 if len(train) > 1000 else 1,
        sublinear_tf=True,
        max_features=200_000,
        analyzer=analyzer,
        ngram_range=(1, 2) if analyzer == "word" else (1, 3),
        token_pattern=r"(?u)\b\w+\b",
    )
    features = vectorizer.fit_transform([row["text"] for row in train])
    weights = "balanced" if balanced else None
    model = LogisticRegression(C=4, max_iter=2000, class_weight=weights).fit(features, [row["label"] for row in train])
    said, truth = model.predict(vectorizer.transform([row["text"] for row in test])), [row["label"] for row in test]
    return float(accuracy_score(truth, said)), float(f1_score(truth, said, average="macro"))


def gru(
    train: Sequence[Row],
    test: Sequence[Row],
    *,
    words: int,
    vectors: Any = None,
    size: int = 50,
    epochs: int = 4,
    seed: int = 0,
) -> float:
    """Accuracy of a bidirectional GRU on `input_ids`, trained from scratch; its embedding begins with `vectors`."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    names = sorted({row["label"] for row in train})
    embedding = nn.Embedding(words, size, padding_idx=0)
    if vectors is not None:
        embedding = nn.Embedding.from_pretrained(torch.tensor(vectors), freeze=False, padding_idx=0)
    recurrent = nn.GRU(embedding.embedding_dim, 48, batch_first=True, bidirectional=True)
    head, dropout = nn.Linear(96, len(names)), nn.Dropout(0.3)
    modules = nn.ModuleList([embedding, recurrent, head])
    optimizer = torch.optim.AdamW(modules.parameters(), lr=2e-3, weight_decay=0.01)

    def logits(rows: Sequence[Row]) -> Any:
        ids = [row["input_ids"][:100] or [1] for row in rows]
        longest = max(map(len, ids))
        batch = torch.tensor([one + [0] * (longest - len(one)) for one in ids])
        states, _ = recurrent(dropout(embedding(batch)))
        states = states.masked_fill((batch == 0).unsqueeze(-1), -1e4)
        return head(dropout(states.max(1).values))

    for epoch in range(epochs):
        modules.train()
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed * 100 + epoch)).tolist()
        for begin in range(0, len(order), 64):
            rows = [train[i] for i in order[begin : begin + 64]]
            loss = nn.functional.cross_entropy(logits(rows), torch.tensor([names.index(row["label"]) for row in rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    modules.eval()
    with torch.inference_mode():
        said = [int(i) for begin in range(0, len(test), 256) for i in logits(test[begin : begin + 256]).argmax(-1)]
    return sum(names[i] == row["label"] for i, row in zip(said, test, strict=True)) / len(test)


def spread(values: Sequence[float]) -> str:
    """Median, with the least and the largest."""
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def gru_of(data: Data, words: int, *, vectors: Any = None, size: int = 50, seeds: int = 3) -> str:
    """The spread of the GRU's accuracy over seeds."""
    runs = [gru(data.train, data.test, words=words, vectors=vectors, size=size, seed=seed) for seed in range(seeds)]
    return spread(runs)
