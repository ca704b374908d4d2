"""Turns what a job made into a registered model version. Idempotent: one content, one number within a card."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os._version import __version__
from llm_os.errors import InternalError
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.spec.base import Json
from llm_os.spec.events import EventKind
from llm_os.spec.jobs import Job
from llm_os.spec.models import Lineage, ModelVersion
from llm_os.store import rows


def model_version(tx: Connection, job: Job, digest: str, facts: ArtifactFacts, now: float) -> ModelVersion:
    """The version under `job.spec.name`; the one that is there if this content was registered before."""
    card = job.spec.name
    if card is None:
        raise InternalError(f"{job.id} made a model but has no name for it.")
    known = rows.model_by_manifest(tx, card, digest)
    if known is not None:
        return known
    meta = dict(facts.meta)
    version = ModelVersion(
        card=card,
        number=rows.next_number(tx, card),
        manifest=digest,
        format=str(meta.get("format", "unknown")),
        precision=str(meta.get("precision", "unknown")),
        task=str(meta.get("task", "unknown")),
        size=facts.size,
        meta=meta,
        metrics=_numbers(meta.get("metrics")),
        lineage=Lineage(
            parent=_text(job.result.get("parent")),
            source=_text(meta.get("source")),
            job=job.id,
            task=job.spec.task,
            options=dict(job.spec.options),
            inputs=dict(job.spec.inputs),
            preparation=_mappings(meta.get("preparation")),
            code_version=__version__,
        ),
        created_at=now,
    )
    rows.add_model(tx, version)
    rows.add_event(tx, now, EventKind.MODEL_REGISTERED, version.ref, f"{version.ref} was made by {job.id}.")
    return version


def _text(value: Json) -> str | None:
    return None if value is None else str(value)


def _numbers(value: Json) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {name: float(number) for name, number in value.items() if isinstance(number, int | float)}


def _mappings(value: Json) -> tuple[dict[str, Json], ...]:
    return tuple(entry for entry in value if isinstance(entry, dict)) if isinstance(value, list) else ()
