"""Class names of a data set, as its facts tell them. Pure."""

from __future__ import annotations

from llm_os.errors import DataError, SingleClassError
from llm_os.spec.artifacts import ArtifactFacts


def labels_of(facts: ArtifactFacts) -> list[str] | None:
    """Class names of a data set, None for a regression. Raises SingleClassError, DataError."""
    if facts.kind != "dataset":
        raise DataError(f"The input is a {facts.kind}, not a data set.", hint="Give what load_data returned.")
    labels = facts.meta.get("labels")
    if labels is None:
        return None
    names = [str(label) for label in labels] if isinstance(labels, list) else []
    if len(names) < 2:
        raise SingleClassError(f"The data has one class only ({', '.join(names)}).", hint="Two are needed to learn.")
    return names
