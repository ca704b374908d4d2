"""MLflow reads the store of files that an export writes, wherever it was moved to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_os.tasks.training.curves import History, write_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_mlflow_reads_every_step_and_epoch(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    losses = [1 / step for step in range(1, 1501)]
    epochs = [{"epoch": n, "loss": 1 / n, "validation_accuracy": n / 4} for n in (1, 2, 3)]
    (tmp_path / "history.json").write_text(json.dumps({"losses": losses, "epochs": epochs}))
    store = tmp_path / "store"
    store.mkdir()
    write_mlflow(History.read(tmp_path / "history.json", "mood@2", {"parameters": "7"}), store)
    moved = tmp_path / "elsewhere" / "mood@2"
    shutil.move(store, moved)
    client = MlflowClient(tracking_uri=moved.as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name == "llm-os")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mood@2"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"parameters": "7"}
    assert [m.value for m in sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda m: m.step)] == losses
    accuracy = client.get_metric_history(run.info.run_id, "epoch/validation_accuracy")
    assert sorted((m.step, m.value) for m in accuracy) == [(500, 0.25), (1000, 0.5), (1500, 0.75)]
    assert not any(str(store) in meta.read_text() for meta in moved.rglob("meta.yaml"))
