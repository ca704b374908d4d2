"""Where the programs of engines lie: an environment of their own, this one, the PATH; must not know any engine.

An engine may live in another virtual environment than LLM OS, so that their requirements do not fight. Such an
environment is a folder, or a link to one, below `environments/` in the home, and is named by that folder's name. The
one that is named as an engine is that engine's. Nothing is imported and no program is run here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from llm_os._version import __version__
from llm_os.errors import NotFoundError, did_you_mean
from llm_os.settings import Settings

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be started.

    Attributes:
        where: for people, such as `the environment vllm`.
        site: folder of the packages of its environment; None where it may belong to none.
    """

    path: Path
    where: str
    site: Path | None = None

    def version(self, *distributions: str) -> str | None:
        """Version of the first of these distributions that is installed beside it; None where there is none."""
        if self.site is None:
            return None
        search = [str(self.site)]
        found = (one.version for name in distributions for one in metadata.distributions(name=name, path=search))
        return next(found, None)

    def digest(self) -> str:
        """Of what it is: its file and the libraries that lie beside it; of another build it is another.

        Files are read once as long as their size and times stay. Blocks for as long as that takes.
        """
        files = [self.path, *sorted(self.path.resolve().parent.glob("*.so*"))]
        whole = hashlib.sha256()
        for file in files:
            try:
                found = file.stat()
                whole.update(_digest(str(file), found.st_size, found.st_mtime_ns, found.st_ino))
            except OSError:  # it goes away just now
                whole.update(b"gone")
        return whole.hexdigest()


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int, inode: int) -> bytes:  # noqa: ARG001 - the key of what is known
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def environments(settings: Settings | None = None) -> dict[str, Path]:
    """Names of environments in the home -> their folders."""
    folder = (settings or Settings()).home / "environments"
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if NAME.match(path.name) and (path / "bin").is_dir()}


def interpreter(environment: str, settings: Settings | None = None) -> str:
    """Path of the Python of that environment, of this one where there is none of that name."""
    folder = environments(settings).get(environment)
    python = folder / "bin" / "python" if folder is not None else None
    return str(python) if python is not None and _runs(python) else sys.executable


def installed(environment: str, *distributions: str) -> dict[str, str] | str:
    """Versions of distributions in the environment of that name, or in this one where there is none of that name.

    Another environment must hold this version of LLM OS too: kernel and worker speak through files.

    Returns:
        Version by distribution, or one sentence that says what is missing.
    """
    folder = environments().get(environment)
    sites = sorted(folder.glob("lib/python3.*/site-packages")) if folder is not None else []
    search = [str(site) for site in sites] if folder is not None else sys.path
    where = f"in the environment {environment}" if folder is not None else ""
    found: dict[str, str] = {}
    for name in (*distributions, *(["llm-os"] if folder is not None else [])):
        version = next((one.version for one in metadata.distributions(name=name, path=search)), None)
        if version is None:
            return f"The package {name} is not installed{f' {where}' if where else ''}."
        found[name] = version
    if found.get("llm-os", __version__) != __version__:
        return f"LLM OS {found['llm-os']} is {where}, and {__version__} here."
    return found


def find(name: str, *, engine: str, environment: str | None = None, package: str | None = None) -> Program | None:
    """The program of that name, None where it is not there.

    Args:
        engine: the environment of its name is looked into first.
        environment: look there and nowhere else.
        package: an import package that may hold it in its folder `bin`.

    Raises:
        NotFoundError: there is no such environment.
    """
    return next(_places(name, engine, environment, package), None)


def identity(program: Program | None, *distributions: str) -> str:
    """Versions of distributions beside a program, and what it is itself; empty where there is none."""
    if program is None:
        return ""
    versions = [f"{name} {version}" for name in distributions if (version := program.version(name)) is not None]
    return ", ".join([*versions, program.digest()])


def _places(name: str, engine: str, environment: str | None, package: str | None) -> Iterator[Program]:
    known = environments()
    if environment is not None and environment not in known:
        raise NotFoundError(
            f"There is no environment '{environment}'.",
            hint=did_you_mean(environment, known) + f" They lie in {Settings().home / 'environments'}.",
        )
    if environment is None:
        if engine in known:
            yield from _inside(known[engine], engine, name, package)
        yield from _here(name, package)
    for called, folder in known.items():
        if environment in (None, called):
            yield from _inside(folder, called, name, package)


def _here(name: str, package: str | None) -> Iterator[Program]:
    own, site = Path(sys.prefix) / "bin" / name, Path(sysconfig.get_path("purelib"))
    if _runs(own):
        yield Program(own, "this environment", site)
    found = importlib.util.find_spec(package) if package else None
    for place in (found.submodule_search_locations or ()) if found else ():
        if _runs(inside := Path(place) / "bin" / name):
            yield Program(inside, f"the package {package}", Path(place).parent)
    if (path := shutil.which(name)) is not None:
        yield Program(Path(path), "the PATH")


def _inside(folder: Path, called: str, name: str, package: str | None) -> Iterator[Program]:
    where = f"the environment {called}"
    sites = sorted(folder.glob("lib/python3.*/site-packages"))
    site = sites[-1] if sites else None
    candidates = [folder / "bin" / name]
    if package is not None and site is not None:
        candidates.append(site / package / "bin" / name)
    yield from (Program(path, where, site) for path in candidates if _runs(path))


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
