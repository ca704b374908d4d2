"""Files of an artifact, copied out of the home into a folder of the user's; must not know what they are."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from llm_os.client.connection import Connection
from llm_os.client.jobs import run
from llm_os.spec import api
from llm_os.spec.jobs import JobSpec
from llm_os.spec.models import ModelVersion


def copied_out(connection: Connection, digest: object, folder: str | Path) -> Path:
    """Copy an artifact into a new folder and return where that is. Raises ConflictError if it holds anything."""
    target = Path(folder).expanduser().absolute()
    body = api.ExportRequest(path=str(target))
    connection.transport.call("POST", f"/v1/artifacts/{digest}/export", api.ExportReport, body=body)
    return target


def history(connection: Connection, version: ModelVersion, format: str, folder: str | Path) -> Path:
    """Write how a version learnt, as another tool reads it, into `folder/<card>@<number>`.

    Raises InvalidOptionError, NotFoundError, ConflictError: see `Model.export_history`.
    """
    inputs = {"model": version.manifest}
    spec = JobSpec(task="training/export", options={"format": format, "name": version.ref}, inputs=inputs)
    job = run(connection, spec, f"Exporting {version.ref}", quiet=True)
    return copied_out(connection, job.result["artifact"], Path(folder) / version.ref)


def curves(connection: Connection, version: ModelVersion, path: str | Path) -> Path:
    """Write a picture (PNG) of how a version learnt. Raises NotFoundError: it was not trained here."""
    target = Path(path).expanduser().absolute()
    with tempfile.TemporaryDirectory() as folder:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(history(connection, version, "png", folder) / "curves.png", target)
    return target
