"""Learns the table of n-grams of models/wide.py: its entries, how rare they are, and what each says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_os.errors import DataError
from llm_os.tasks.training import linear
from llm_os.tasks.training.examples import padded

FEWEST = 2
"""Texts that hold an n-gram of the table, at least."""
STRENGTH = 4.0
"""Inverse of the regularization: usual for TF-IDF, and what our peer in benchmarks/quality has."""
TOGETHER = 512
"""Texts that are looked at together."""
ELSEWHERE = frozenset(
    {"_name_or_path", "architectures", "transformers_version", "dtype", "id2label", "label2id", "problem_type"}
)
"""What a configuration says beside the form of its model; paths of this machine among it."""
Texts = Sequence[Sequence[int]]
"""Token ids of each text, with the prompt."""


@dataclass(frozen=True, slots=True)
class Table:
    """Entries by ascending key.

    Attributes:
        keys: int64 [entries]. idf: float32 [entries]. head: weights [outputs, entries] and biases.
        longest, behind: see `wide.WideConfig`.
    """

    keys: Any
    idf: Any
    head: linear.Head
    longest: int
    behind: int

    def outputs(self, texts: Texts) -> Any:
        """float64 [texts, outputs]."""
        return _matrix(texts, self.keys, self.idf, self.longest, self.behind) @ self.head.weight.T + self.head.bias

    def times(self, factor: float) -> Table:
        """The same entries, each saying so many times as much."""
        return replace(self, head=self.head.times(factor))


def learn(texts: Texts, targets: linear.Targets, longest: int, behind: int) -> Table:
    """The table for some texts. Raises DataError where none of them shares a token with another one."""
    import torch

    keys, idf = _entries(texts, longest, behind)
    if not len(keys):
        raise DataError("No token is in two texts, so n-grams say nothing.", hint="Leave `ngrams` out.")
    found = torch.from_numpy(keys), torch.from_numpy(idf)
    matrix = _matrix(texts, *found, longest, behind)
    return Table(*found, linear.Head(*linear.solution(matrix, targets, STRENGTH)), longest, behind)


def _entries(texts: Texts, longest: int, behind: int) -> tuple[Any, Any]:
    """Keys of what is in enough texts, ascending, and the inverse document frequency of each (smooth)."""
    import numpy as np
    import torch

    from llm_os.models import wide

    seen = []
    for at in range(0, len(texts), TOGETHER):
        batch = padded(texts[at : at + TOGETHER], 0)
        pairs = torch.stack(wide.runs(batch["input_ids"], batch["attention_mask"], longest, behind), 1)
        seen.append(torch.unique(pairs, dim=0)[:, 1].numpy())
    keys, counts = np.unique(np.concatenate(seen), return_counts=True)
    often = counts >= FEWEST
    idf = np.log((1 + len(texts)) / (1 + counts[often])) + 1
    return keys[often], idf.astype(np.float32)


def _matrix(texts: Texts, keys: Any, idf: Any, longest: int, behind: int) -> Any:
    """Sparse float64 [texts, entries]: exactly what the model will compute."""
    from scipy.sparse import csr_matrix, vstack

    from llm_os.models import wide

    rows = []
    for at in range(0, len(texts), TOGETHER):
        part = texts[at : at + TOGETHER]
        batch = padded(part, 0)
        found = wide.tfidf(batch["input_ids"], batch["attention_mask"], keys, idf, longest, behind)
        places, entries, values = (tensor.numpy() for tensor in found)
        rows.append(csr_matrix((values.astype("float64"), (places, entries)), shape=(len(part), len(keys))))
    return vstack(rows).tocsr()


def widened(model: Any, table: Table, bias: Any, context_length: int) -> Any:
    """A model whose logits are those of the classifier `model` and of the table, summed, and `bias` [outputs]."""
    import torch

    from llm_os.models import wide

    given = model.config
    config = wide.WideConfig(
        body={name: value for name, value in given.to_dict().items() if name not in ELSEWHERE},
        ngrams=table.longest,
        entries=len(table.keys),
        behind=table.behind,
        **{name: getattr(given, name) for name in wide.SIZES},
        max_position_embeddings=context_length,
        id2label=given.id2label,
        label2id=given.label2id,
        num_labels=given.num_labels,
        problem_type=given.problem_type,
        pad_token_id=given.pad_token_id,
    )
    with torch.device("meta"):  # no second copy in memory
        made = wide.WideForSequenceClassification(config)
    made.body = model
    made.keys, made.idf = table.keys, table.idf
    made.table = torch.nn.Parameter(torch.as_tensor(table.head.weight.T, dtype=torch.float32).contiguous())
    made.bias = torch.nn.Parameter(torch.as_tensor(table.head.bias + bias, dtype=torch.float32))
    return made
