"""Turns an encoder of PyTorch into a graph of OpenVINO, also with weights in 8 bits, and runs it in the model's place.

Knows no job, no HTTP and no folder of a home. Imports torch and openvino: import it only where a model runs.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from torch import nn

from llm_os.errors import UnsupportedModelError
from llm_os.models.wide import WideConfig

# With this package `import openvino` tells Intel so, and keeps a number of this user in ~/intel; without, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402
from openvino import opset13  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

INPUTS = ("input_ids", "attention_mask")
GROUP = 64
"""Activations that share a scale where weights have 8 bits; they are rounded while the model runs."""
SAME = 1e-3
"""Largest difference of what the graph and the model in PyTorch put out, as a share of the largest value, in fp32."""
OWN = 2
"""Calls side by side up to which each has a compiled graph of its own: that runs in its caller's thread, while one with
several streams runs in OpenVINO's, which wait for each other and for their callers where cores are few. More calls
share one, and its weights."""


class Graph(nn.Module):
    """A compiled graph that is called as the model it was made of: by name, with int64 [texts, tokens] each.

    Several threads may call it at once, each with its own request; what it gives is good until the thread's next call.

    Args:
        make: compiles the graph; called now, and by a further thread that needs its own. lanes: such threads; more
            share what is there.
        name: of its output, as transformers calls it. config: of the model.
    """

    def __init__(self, make: Callable[[], Any], lanes: int, name: str, config: Any) -> None:
        super().__init__()
        self._compiled = [make()]
        self._make = make if lanes > 1 else None
        self._lanes, self._threads = lanes, 0
        self._lock, self._requests = threading.Lock(), threading.local()
        self._name = name
        self.config = config
        self.device = torch.device("cpu")

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        given = dict(zip(INPUTS, (input_ids.numpy(), attention_mask.numpy()), strict=True))
        if (request := getattr(self._requests, "mine", None)) is None:
            request = self._requests.mine = self._mine().create_infer_request()
        (found,) = request.infer(given, share_inputs=True).values()
        return SimpleNamespace(**{self._name: torch.from_numpy(found)})

    def _mine(self) -> Any:
        """The compiled graph of a thread that calls for the first time."""
        with self._lock:
            at, self._threads = self._threads % self._lanes, self._threads + 1
            if self._make is not None and at == len(self._compiled):
                self._compiled.append(self._make())
                if len(self._compiled) == self._lanes:
                    self._make = None  # it holds the graph
            return self._compiled[at % len(self._compiled)]


class _Output(nn.Module):
    """A model that gives one tensor, which is what a graph can be traced from."""

    def __init__(self, model: Any, name: str) -> None:
        super().__init__()
        self.model, self._name = model, name
        model.config.use_cache = False  # of a decoder: nothing comes after the text

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return getattr(self.model(input_ids=input_ids, attention_mask=attention_mask), self._name)


def converted(model: Any, name: str) -> Any:
    """A graph in fp32 of a model, or of the part of it that can be one; any number of texts and tokens.

    Args:
        name: its output: `logits` or `last_hidden_state`.

    Raises:
        UnsupportedModelError: the model cannot become a graph, or the graph does not compute what the model does.
    """
    inner = part(model)
    example = {name: torch.ones((2, 8), dtype=torch.long) for name in INPUTS}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # what a trace cannot see is told; whether it matters is checked below
            # Not by `openvino.convert_model`: it tells Intel of each conversion, and waits where there is no network.
            traced = TorchScriptPythonDecoder(_Output(inner, name), example_input=example)
            front = FrontEndManager().load_by_framework("pytorch")
            graph = front.convert(front.load(traced))
    except Exception as error:  # the border: PyTorch and OpenVINO raise of all kinds
        raise _refused(model, f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}") from error
    for shape, port in zip(INPUTS, graph.inputs, strict=True):
        port.get_tensor().set_names({shape})
    check(inner, graph, name)
    return graph


def check(model: Any, graph: Any, name: str) -> None:
    """Raises UnsupportedModelError if the graph's output differs: on one text, on several, and with padding."""
    running = Graph(partial(_compile, graph, "fp32", 1), 1, name, model.config)
    most = int(model.config.get_text_config().vocab_size)
    random = numpy.random.default_rng(0)
    for texts, tokens in ((1, 3), (3, 11), (2, 5)):
        ids = torch.from_numpy(random.integers(0, most, (texts, tokens)))
        mask = torch.ones_like(ids)
        mask[texts - 1, max(1, tokens // 2) :] = texts == 1  # the last of several is shorter than the others
        if texts > 1 and model.config.pad_token_id is not None:
            ids[ids == model.config.pad_token_id] = (model.config.pad_token_id + 1) % most
            ids[mask == 0] = model.config.pad_token_id
        try:
            with torch.inference_mode():
                expected = getattr(model(input_ids=ids, attention_mask=mask), name).float()
            got = getattr(running(ids, mask), name)
        except RuntimeError as error:
            raise _refused(model, str(error).strip().splitlines()[-1][:200]) from error
        if name != "logits" or expected.ndim > 2:  # states of padding are nobody's
            expected, got = expected[mask == 1], got[mask == 1]
        apart = float((expected - got).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not apart <= SAME:  # also when it is no number
            raise _refused(model, f"for {texts} texts of {tokens} tokens its graph says something else ({apart:.2g})")


def _refused(model: Any, why: str) -> UnsupportedModelError:
    kind = type(model).__name__
    return UnsupportedModelError(
        f"OpenVINO cannot run this {kind} as a graph: {why}.", hint="Leave the engine out: torch serves it."
    )


def compressed(graph: Any) -> int:
    """Round the weights of matrix products to 8 bits, one scale a row, in place; how many products there are."""
    count = 0
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        weights = node.input_value(1).get_node()
        if weights.get_type_name() != "Constant" or len(weights.shape) != 2:
            continue
        whole, scale = rounded(weights.data.astype(numpy.float32))
        back = opset13.multiply(opset13.convert(opset13.constant(whole), "f32"), opset13.constant(scale))
        node.input(1).replace_source_output(back.output(0))
        count += 1
    return count


def rounded(weights: Any) -> tuple[Any, Any]:
    """(int8 [rows, columns], float32 [rows, 1]) whose product is nearest to float32 [rows, columns]."""
    scale = numpy.abs(weights).max(1, keepdims=True) / 127
    scale[scale == 0] = 1
    return numpy.clip(numpy.rint(weights / scale), -127, 127).astype(numpy.int8), scale.astype(numpy.float32)


def version() -> str:
    """Release of OpenVINO, such as `2026.4.1`."""
    return str(openvino.get_version().partition("-")[0])


def save(graph: Any, folder: Path) -> None:
    """Write `model.xml` and `model.bin` as they are."""
    openvino.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)


def load(folder: Path) -> Any:
    """The graph that `save` wrote."""
    return openvino.Core().read_model(str(folder / "model.xml"))


def run_by(model: Any, graph: Any, name: str, precision: str, threads: int, streams: int = 1) -> Any:
    """The model with the graph in the place of its part; the given model stays as it is.

    Args:
        precision: in which it computes: `fp32`, `bf16`, or `int8` where the graph is compressed.
        streams: calls that run side by side, each on its share of the threads.
    """
    inner = part(model)
    if streams <= OWN:
        make, lanes = partial(_compile, graph, precision, -(-threads // streams)), streams
    else:
        make, lanes = partial(_compile, graph, precision, threads, streams), 1
    running = Graph(make, lanes, name, inner.config)
    if inner is model:
        return running
    whole = copy.copy(model)
    whole._modules = {**model._modules, "body": running}
    return whole


def part(model: Any) -> Any:
    """What becomes a graph: all of a model, but of one with a table of n-grams only what stands beside it."""
    return model.body if getattr(model.config, "model_type", "") == WideConfig.model_type else model


def _compile(graph: Any, precision: str, threads: int, streams: int = 1) -> Any:
    # Pinned threads of two engines would fight for the same cores while others are idle.
    properties: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": max(1, threads),
        "NUM_STREAMS": str(streams),
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP if precision == "int8" else 0),
    }
    return openvino.Core().compile_model(graph, "CPU", properties)
