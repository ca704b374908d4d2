"""LLM OS (大语言模型操作系统): the whole life of language models on the machines you have.

    import llm_os
    llm_os.set_resources(gpus=[0, 1], cpus=4)
    model = llm_os.load_model("transformer")
    train_data, test_data = llm_os.load_data("sentic_data")
    model.train(train_data, epochs=10)
    model.evaluate(test_data)

Importing this loads nothing heavy; each name is loaded at its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llm_os._version import __version__

if TYPE_CHECKING:
    from llm_os import errors
    from llm_os.client.answers import Prediction
    from llm_os.client.datasets import Dataset
    from llm_os.client.deployments import Deployment
    from llm_os.client.evaluations import Comparison, Evaluation
    from llm_os.client.jobs import Job
    from llm_os.client.models import Model
    from llm_os.client.quality import QualityReport
    from llm_os.client.results import TrainingResult
    from llm_os.session import load_data, load_model, new_model, resources, set_resources
    from llm_os.spec.resources import Resources

__all__ = [
    "Comparison",
    "Dataset",
    "Deployment",
    "Evaluation",
    "Job",
    "Model",
    "Prediction",
    "QualityReport",
    "Resources",
    "TrainingResult",
    "__version__",
    "errors",
    "load_data",
    "load_model",
    "new_model",
    "resources",
    "set_resources",
]

_HOMES = {
    "Comparison": "llm_os.client.evaluations",
    "Dataset": "llm_os.client.datasets",
    "Deployment": "llm_os.client.deployments",
    "Evaluation": "llm_os.client.evaluations",
    "Job": "llm_os.client.jobs",
    "Model": "llm_os.client.models",
    "Prediction": "llm_os.client.answers",
    "QualityReport": "llm_os.client.quality",
    "Resources": "llm_os.spec.resources",
    "TrainingResult": "llm_os.client.results",
    "load_data": "llm_os.session",
    "load_model": "llm_os.session",
    "new_model": "llm_os.session",
    "resources": "llm_os.session",
    "set_resources": "llm_os.session",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("llm_os.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'llm_os' has no attribute '{name}'; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
