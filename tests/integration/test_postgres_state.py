"""A kernel whose state lies in Postgres: work is done, and nothing is lost when the kernel is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

pytestmark = [pytest.mark.timeout(300)]

LOADS = """
import json, llm_os
train, test = llm_os.load_data("reviews.csv")
print(json.dumps([train.digest, len(train), len(test)]))
"""


@pytest.fixture
def on_postgres(home: dict[str, str], postgres: str) -> Iterator[dict[str, str]]:
    """The environment of a home whose state lies in a database of its own."""
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE state")
    address = make_url(postgres).set(database="state").render_as_string(hide_password=False)
    try:
        yield {**home, "LLM_OS_DATABASE": address}
    finally:
        subprocess.run([sys.executable, "-m", "llm_os.cli.main", "down"], env=home, capture_output=True, check=False)
        with engine.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE state WITH (FORCE)")
        engine.dispose()


def run(env: dict[str, str], folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def up(env: dict[str, str], folder: Path) -> None:
    run(env, folder, "-m", "llm_os.cli.main", "up")


def jobs(env: dict[str, str]) -> list[tuple[str, str]]:
    engine = create_engine(env["LLM_OS_DATABASE"])
    with engine.connect() as connection:
        found = [(row[0], row[1]) for row in connection.exec_driver_sql("SELECT id, state FROM jobs ORDER BY number")]
    engine.dispose()
    return found


def test_the_state_outlives_a_killed_kernel(on_postgres: dict[str, str], tmp_path: Path) -> None:
    rows = [f"this is text {n} and it is {'good' if n % 2 else 'bad'},{n % 2}" for n in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    up(on_postgres, tmp_path)
    first = json.loads(run(on_postgres, tmp_path, "-c", LOADS))
    before = jobs(on_postgres)
    assert [state for _, state in before] == ["succeeded"]

    note = json.loads((Path(on_postgres["LLM_OS_HOME"]) / "run" / "kernel.json").read_bytes())
    os.kill(note["pid"], signal.SIGKILL)
    up(on_postgres, tmp_path)
    assert jobs(on_postgres) == before
    assert json.loads(run(on_postgres, tmp_path, "-c", LOADS)) == first
    assert not (Path(on_postgres["LLM_OS_HOME"]) / "state.db").exists()
