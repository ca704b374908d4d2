"""The peer of the tuned encoder: TF-IDF with logistic regression on the default split of sentic_data."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

from llm_os import plugins
from llm_os.tasks.context import Context
from llm_os.tasks.training.batches import read_rows

GRAMS = {"en": {"ngram_range": (1, 2)}, "zh": {"ngram_range": (1, 3), "analyzer": "char"}}


def accuracy(language: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("output", "checkpoints", "scratch"):
            (root / name).mkdir()
        context = Context(inputs={}, output=root / "output", checkpoints=root / "checkpoints", scratch=root / "scratch")
        task = plugins.load("task", "datasets/sentic_data")
        task.run(context, task.Options(language=language))
        train, test = (read_rows(root / "output", split) for split in ("train", "test"))
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, max_features=200_000, **GRAMS[language])
    features = vectorizer.fit_transform([row["text"] for row in train])
    model = LogisticRegression(C=4, max_iter=2000).fit(features, [row["label"] for row in train])
    said = model.predict(vectorizer.transform([row["text"] for row in test]))
    return float(accuracy_score([row["label"] for row in test], said))


if __name__ == "__main__":
    for language in GRAMS:
        print(f"{language}: accuracy {accuracy(language):.4f}")
