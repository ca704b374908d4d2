"""Model versions and where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from llm_os.spec.base import Digest, Json, Name, Record


class ModelFormat(StrEnum):
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    ONNX = "onnx"
    OPENVINO = "openvino"


class Precision(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Lineage(Record):
    """How a version came to be: enough to make it again."""

    parent: str | None = None
    """Version it was made from, as `card@number`."""
    source: str | None = None
    """Where it was fetched from (`package:...`, `file:...`)."""
    job: str | None = None
    task: str | None = None
    options: Mapping[str, Json] = Field(default_factory=dict)
    inputs: Mapping[str, str] = Field(default_factory=dict)
    """Digest of every input by its role (`model`, `data`)."""
    preparation: tuple[Mapping[str, Json], ...] = ()
    """Steps that the data it learnt from had behind it: name, options, rows in and out, notes."""
    code_version: str = ""


WEIGHTS_OF = "weights_of"
"""In `meta` of a version whose weights are those of another one, rounded: the digest of that one. Engines that serve it
are compared with that one, which is the one that was judged."""


class ModelVersion(Record):
    """Immutable; its content name is the digest of its manifest."""

    card: Name
    number: int = Field(ge=1)
    manifest: Digest
    format: str
    precision: str
    task: str
    """`text-classification`, `text-generation`, `feature-extraction` (no head yet), ...: models/formats.py."""
    size: int
    meta: Mapping[str, Json] = Field(default_factory=dict)
    """Labels, parameters, architecture, context length ..."""
    metrics: Mapping[str, float] = Field(default_factory=dict)
    lineage: Lineage = Lineage()
    created_at: float

    @property
    def ref(self) -> str:
        """`card@number`."""
        return f"{self.card}@{self.number}"
