"""Tuned weights as GGUF, the form that openvino and llama.cpp read; must not know how it is written."""

from __future__ import annotations

import contextlib

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.errors import NotFoundError
from llm_os.spec.base import ending_with
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion

READERS = frozenset({"openvino", "llamacpp"})
"""Engines that read GGUF alone."""


def check_base(version: ModelVersion) -> None:
    """Raises NotFoundError for an adapter that nobody can merge, since its base is not recorded."""
    if version.format == "adapter" and not isinstance(version.meta.get("base"), str):
        raise NotFoundError(
            f"It is not recorded on what {version.ref} was trained.",
            hint=f"Merge it first: llm-os merge {version.card} --base MODEL; then write the merged version.",
        )


def in_gguf(
    connection: Connection, version: ModelVersion, base: str | None = None, card: str | None = None
) -> ModelVersion:
    """Tuned weights as GGUF in 8 bits, as a version of `card`; made once.

    Args:
        base: digest of the GGUF model that they were tuned from; None: the one that their lineage leads to.
        card: None: the version's own with `-gguf`.

    Raises NotFoundError: their lineage leads to none.
    """
    base = base or _gguf_of(connection, version)
    if base is None:
        raise NotFoundError(
            f"It is not recorded from which GGUF model {version.ref} was tuned.",
            hint="Give base=model (--base MODEL): its tokenizer and its form are taken.",
        )
    inputs = {"model": version.manifest, "base": base}
    spec = JobSpec(task="sources/gguf", inputs=inputs, name=card or ending_with(version.card, "-gguf"))
    job = run(connection, spec, f"Writing {version.ref} as GGUF")
    return connection.transport.call("GET", f"/v1/models/{job.result['version']}", ModelVersion)


def _gguf_of(connection: Connection, version: ModelVersion) -> str | None:
    """The GGUF version that a line of versions began with."""
    seen, next_ = set[str](), [version]
    while next_:
        one = next_.pop()
        if one.format == "gguf" and one.manifest != version.manifest:
            return one.manifest
        for digest in (one.lineage.inputs.get("base"), one.lineage.inputs.get("model")):
            if digest is None or digest in seen:
                continue
            seen.add(digest)
            with contextlib.suppress(NotFoundError):  # it was deleted
                next_.append(connection.transport.call("GET", f"/v1/models/{digest}", ModelVersion))
    return None
