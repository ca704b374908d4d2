"""Finds what a version says in PyTorch, if somebody made that. Looks records up; never runs a model."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import NotFoundError
from llm_os.kernel.state import State
from llm_os.kernel.submission import cache_key
from llm_os.spec.models import WEIGHTS_OF
from llm_os.store import rows

TASK = "evaluation/reference"


def reference_of(state: State, tx: Connection, manifest: str) -> str | None:
    """Digest of the reference of the model of this digest; None: nobody made one, or it is gone."""
    try:
        judged = str(state.artifacts.facts(manifest).meta.get(WEIGHTS_OF, manifest))
    except NotFoundError:
        return None
    result = rows.get_result(tx, cache_key(TASK, {}, {"model": judged}))
    digest = None if result is None else str(result["artifact"])
    if digest is not None:
        try:
            state.artifacts.facts(digest)
        except NotFoundError:
            return None
    return digest
