"""One epoch of Ludwig on the texts of speed.py, in an environment of its own. Imports nothing of ours.

    pip install torch==2.13.0 ludwig==0.11.0
    python with_ludwig.py MODEL TRAIN.csv TEST.csv

Text with its pretrained encoder trained whole, batch 32, rate 5e-5, AdamW; the rest as Ludwig has it. Ludwig cannot be
imported without torchvision and torchaudio, whose wheels may not fit a CPU build of torch: where they cannot be
imported, empty modules stand in for them, since text needs neither.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import sys
import tempfile
import time
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

UNUSED = ("torchvision", "torchaudio")


class Empty:
    """Finds the modules that text does not need."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        del path, target
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in UNUSED else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> MagicMock:
        module = MagicMock(name=spec.name)
        module.__spec__, module.__path__, module.__name__, module.__version__ = spec, [], spec.name, "2.1.0"
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def main() -> None:
    for name in UNUSED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError):
            for loaded in [one for one in sys.modules if one.split(".")[0] in UNUSED]:
                del sys.modules[loaded]
            sys.meta_path.insert(0, Empty())
            break
    import pandas
    import torch
    from ludwig.api import LudwigModel

    folder, train, test = sys.argv[1:4]
    encoder = {"type": "auto_transformer", "pretrained_model_name_or_path": folder, "trainable": True}
    reading = {"tokenizer": "hf_tokenizer", "pretrained_model_name_or_path": folder, "max_sequence_length": 256}
    model = LudwigModel(
        {
            "input_features": [{"name": "text", "type": "text", "encoder": encoder, "preprocessing": reading}],
            "output_features": [{"name": "label", "type": "category"}],
            "preprocessing": {"split": {"type": "fixed"}},
            "trainer": {"epochs": 1, "batch_size": 32, "learning_rate": 5e-5, "optimizer": {"type": "adamw"}},
        },
        backend="local",
        logging_level=40,
    )
    rows, shown = pandas.read_csv(train), pandas.read_csv(test)
    rows["split"] = 0
    off = {f"skip_save_{what}": True for what in ("progress", "log", "model", "training_statistics")}
    ready = model.preprocess(dataset=rows, skip_save_processed_input=True)
    begun, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as out:
        model.train(
            training_set=ready.training_set,
            training_set_metadata=ready.training_set_metadata,
            output_directory=out,
            **off,
        )
    spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    said = model.predict(dataset=shown, skip_save_predictions=True)[0]["label_predictions"]
    right = float((said.to_numpy() == shown["label"].to_numpy()).mean()) if len(shown) else float("nan")
    print(json.dumps({**spent, "accuracy": right, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
