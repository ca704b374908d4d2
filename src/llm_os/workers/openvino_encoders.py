"""Serves encoders as graphs of OpenVINO: classifiers, taggers, embedders; must not know HTTP or the kernel.

Texts are read, and answers made of what the graph puts out, by the same code as in PyTorch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from llm_os.errors import UnsupportedModelError
from llm_os.models import graphs
from llm_os.models.embedding import Encoder, load_encoder
from llm_os.models.formats import inspect
from llm_os.models.load import Classifier, load_classifier
from llm_os.models.tagging import Tagger, load_tagger
from llm_os.spec.attempts import AttemptSpec, ServeCall
from llm_os.workers.backend import Backend
from llm_os.workers.kept import folder_of, kept
from llm_os.workers.precisions import Chosen, Runnable, choose
from llm_os.workers.reading import Embedding, Tagging, streams_of
from llm_os.workers.serving import main, quick_loop
from llm_os.workers.torch import TorchBackend

log = logging.getLogger("llm_os.worker")

FORM = 1
"""Of `models.graphs`: what another one has made is not taken."""
PRECISIONS = ("fp32", "bf16", "int8")
LOADERS: dict[str, Callable[[Path], Runnable]] = {
    "text-classification": load_classifier,
    "multi-label-classification": load_classifier,
    "token-classification": load_tagger,
    "sentence-similarity": load_encoder,
    "feature-extraction": load_encoder,
}


class Graphs:
    """The graphs of one model, made once and kept.

    Args:
        model: in PyTorch, fp32. name: of its output. folder: where graphs are kept. digest: of the model.
        streams: calls that run side by side, each on its share of the threads.
    """

    def __init__(self, model: Any, name: str, folder: Path, digest: str, threads: int, streams: int = 1) -> None:
        self._model, self._name, self._folder = model, name, folder
        self._threads, self._streams = threads, streams
        self._key = f"{digest.replace(':', '-')}-{name}-{FORM}-{graphs.version()}"

    @cached_property
    def plain(self) -> Any:
        """In fp32. Raises UnsupportedModelError."""
        return self._kept("fp32", lambda: graphs.converted(self._model, self._name))

    @cached_property
    def compressed(self) -> Any:
        """With weights in 8 bits. Raises UnsupportedModelError."""

        def make() -> Any:
            graph = self.plain.clone()
            if not graphs.compressed(graph):
                raise UnsupportedModelError("It has no matrix products whose weights could be rounded.")
            return graph

        return self._kept("int8", make)

    def _kept(self, kind: str, make: Callable[[], Any]) -> Any:
        """From the file, which is made if it is not there; where it can be neither read nor written, from memory."""
        made: list[Any] = []

        def save(folder: Path) -> None:
            made.append(make())
            graphs.save(made[0], folder)

        try:
            return graphs.load(kept(self._folder, f"{self._key}-{kind}", save))
        except (OSError, RuntimeError) as error:  # OpenVINO says of a full disk only that its stream broke
            log.warning("the graph in %s is not kept: %s", kind, error)
            return made[0] if made else make()

    def model(self, precision: str) -> Any:
        """What runs in the model's place. Raises UnsupportedModelError."""
        graph = self.compressed if precision == "int8" else self.plain
        return graphs.run_by(self._model, graph, self._name, precision, self._threads, self._streams)

    def chosen(self, runnable: Runnable, precision: str) -> Chosen:
        """The model in the precision that was asked for, or in the best one. Raises UnsupportedModelError."""
        if precision != "auto":
            return Chosen(precision, self.model(precision), "asked for")
        return choose(runnable, {name: partial(self.model, name) for name in PRECISIONS})

    def forget(self) -> None:
        """Free the memory of all but what `model` has given."""
        self._model = None
        for name in ("plain", "compressed"):
            self.__dict__.pop(name, None)


def load(call: ServeCall, spec: AttemptSpec) -> Backend:
    """Read the model; its graph is made, and its precision chosen, when the backend begins.

    Raises:
        UnsupportedModelError: another kind of model, or file; `begin` raises it when it cannot become a graph.
        UnsafeWeightsError, BrokenWeightsError, ModelError: see `models.formats`.
    """
    torch.set_num_threads(max(1, spec.threads))
    path, options = Path(call.model.path), dict[str, Any](call.options)
    if (form := inspect(path)["format"]) != "safetensors" or call.task not in LOADERS:
        raise UnsupportedModelError(
            f"Encoders in safetensors are served here, this is {call.task} in {form}.",
            hint="Leave the engine out to let LLM OS choose.",
        )
    runnable = LOADERS[call.task](path)
    name = "last_hidden_state" if isinstance(runnable, Encoder) else "logits"
    digest, asked = call.model.facts.digest, str(options.get("precision", "auto"))
    # A tagger reads its texts while it runs, and tokenizers are not made to be used twice at once.
    asked_streams = 1 if isinstance(runnable, Tagger) else options.get("streams")
    streams = streams_of(asked_streams, spec.threads, runnable.max_length)
    graph = Graphs(runnable.model, name, folder_of(spec, "graphs"), digest, spec.threads, streams)
    most = int(options.get("max_batch", 32))
    log.info("%d batches side by side on %d threads", streams, spec.threads)

    def in_place(given: Runnable) -> str:
        found = graph.chosen(given, asked)
        given.model = found.model
        graph.forget()
        return f"{found.precision}: {found.why}"

    if isinstance(runnable, Classifier):
        return TorchBackend(runnable, lambda given: (given, in_place(given)), most=most, lanes=streams)
    if isinstance(runnable, Tagger):
        return Tagging(runnable, most, in_place)
    return Embedding(runnable, most, in_place, streams)


if __name__ == "__main__":
    main(load, quick_loop)
