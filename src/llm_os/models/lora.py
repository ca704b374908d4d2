"""Several low-rank adapters over one base in one batch: each row gets its own, or none; knows no HTTP and no training.

Beside the product of a linear layer each row gets that of its adapter's two thin matrices (Hu et al. 2021, section
4.1). The matrices of all adapters of a batch stand side by side, so a step costs two products a layer, however many
adapters there are; what a row has nothing to do with is zero for it (batches over adapters: Chen et al., Punica, 2023).
The base's weights are in memory once, and a row without an adapter gets what the base says in such a batch, to the bit.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_os.errors import BrokenWeightsError, ModelError, UnsupportedModelError
from llm_os.models.formats import ADAPTER

_PREFIX = "base_model.model."
"""What peft puts before the name of a module of the base."""
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")

_MORE = {
    "use_dora": "DoRA",
    "alpha_pattern": "alpha_pattern",
    "lora_bias": "lora_bias",
    "alora_invocation_tokens": "tokens from which on it counts (aLoRA)",
    "layer_replication": "layer_replication",
    "use_qalora": "QALoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "use_bdlora": "BD-LoRA",
}
"""Settings of peft's with which an adapter is not, or not everywhere, the sum of the base and a product."""
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")
"""Beginnings of an adapter (peft's `init_lora_weights`) that take something out of the base's weights."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """One adapter, ready to run.

    Attributes:
        name: for people, such as its version.
        pairs: name of a module -> A [rank, in] and B [out, rank], which holds the scale already.
    """

    name: str
    pairs: Mapping[str, tuple[Any, Any]] = field(repr=False)

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max(int(a.shape[0]) for a, _ in self.pairs.values())


@dataclass(frozen=True, slots=True)
class _Pack:
    """Adapters side by side.

    Attributes:
        pairs: name of a module -> A of all, B of all, and how many columns each adapter has there.
    """

    adapters: tuple[Adapter, ...]
    pairs: Mapping[str, tuple[Any, Any, tuple[int, ...]]]


class Adapters:
    """Puts adapters into the passes of one model. Not safe for several threads, but for `read`: one owns it.

    Args:
        model: of transformers, in the precision to run in. It is left as it is as long as no adapter was used.
    """

    def __init__(self, model: Any) -> None:
        self._modules = dict(model.named_modules())
        self._hooked: set[str] = set()
        self._pack: _Pack | None = None
        self._now: _Pack | None = None
        self._rows: Any = None
        self._masks: dict[tuple[int, ...], Any] = {}

    def read(self, folder: Path, name: str) -> Adapter:
        """An adapter in peft's form, in this model's precision. May be called on any thread; touches no pass.

        Raises:
            BrokenWeightsError: its weights cannot be read, or are no numbers.
            UnsupportedModelError: it is more than low-rank matrices beside linear layers.
            ModelError: it was made for another base.
        """
        scale = _scale_of(folder)
        sides = _sides_of(folder)
        pairs: dict[str, tuple[Any, Any]] = {}
        for module, (a, b) in sides.items():
            weight = self._weight(module, a, b, name)
            down, up = a.to(weight.dtype).contiguous(), (b * scale(int(a.shape[0]))).to(weight.dtype).contiguous()
            if not (down.isfinite().all() and up.isfinite().all()):
                raise BrokenWeightsError(f"{name} holds values that are no numbers.", hint="Train it again.")
            pairs[module] = (down, up)
        return Adapter(name, pairs)

    def _weight(self, module: str, a: Any, b: Any, name: str) -> Any:
        """The weight of the base's layer of this name, if the matrices fit it."""
        layer = self._modules.get(module)
        shape = _shape_of(layer)
        if layer is None or shape is None:
            raise ModelError(
                f"{name} does not fit this base, which has no linear layer '{module}'.",
                hint="Give an adapter that was trained on it.",
            )
        if (int(b.shape[0]), int(a.shape[1])) != shape or a.shape[0] != b.shape[1]:
            raise ModelError(
                f"{name} does not fit this base: at '{module}' it is {b.shape[0]} x {a.shape[1]}, "
                f"and the base {shape[0]} x {shape[1]}.",
                hint="Give an adapter that was trained on it.",
            )
        return layer.weight

    @contextmanager
    def rows(self, wanted: Sequence[Adapter | None]) -> Iterator[None]:
        """Passes inside are of a batch with these adapters, row by row; None is the base alone."""
        used = tuple({id(one): one for one in wanted if one is not None}.values())
        if not used:
            yield
            return
        self._now = pack = self._packed(used)
        self._masks = {}
        if all(one is pack.adapters[0] for one in wanted) and len(pack.adapters) == 1:
            self._rows = None
        else:
            at = {id(one): place for place, one in enumerate(pack.adapters)}
            self._rows = [-1 if one is None else at[id(one)] for one in wanted]
        try:
            yield
        finally:
            self._now = self._rows = None

    def _packed(self, used: tuple[Adapter, ...]) -> _Pack:
        """These side by side. One alone is not copied; several are, once, as long as the batch has the same ones."""
        pack = _pack_of(used) if len(used) == 1 else self._pack
        if pack is None or {*map(id, pack.adapters)} != {*map(id, used)}:
            pack = _pack_of(used)
        for module in pack.pairs.keys() - self._hooked:
            self._hooked.add(module)
            self._modules[module].register_forward_hook(self._hook(module))
        if len(used) > 1:
            self._pack = pack
        return pack

    def forget(self, adapter: Adapter) -> None:
        """Free what was copied of it for batches. Answers that have it go on. May be called on any thread."""
        pack = self._pack
        if pack is not None and any(one is adapter for one in pack.adapters):
            self._pack = None

    def _hook(self, module: str) -> Any:
        from torch.nn.functional import linear

        def add(_: Any, given: tuple[Any, ...], out: Any) -> Any:
            pair = self._now.pairs.get(module) if self._now is not None else None
            if pair is None:
                return None
            down, up, widths = pair
            inside = linear(given[0], down)
            if self._rows is not None:  # where, and no product: another row's numbers never come in
                inside = inside.masked_fill_(self._mask(widths, inside.dim()), 0.0)
            return out.add_(linear(inside, up))

        return add

    def _mask(self, widths: tuple[int, ...], dims: int) -> Any:
        """True where a column belongs to another adapter than the row's: [rows, (1,) columns]."""
        import torch

        if (found := self._masks.get(widths)) is None:
            owner = torch.repeat_interleave(torch.arange(len(widths)), torch.tensor(widths))
            found = self._masks[widths] = owner[None, :] != torch.tensor(self._rows)[:, None]
        return found if dims == 2 else found[:, None, :]


def _shape_of(layer: Any) -> tuple[int, int] | None:
    """(numbers out, numbers in) of a linear layer; None of another: an embedding's weight has two sides as well."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    if not isinstance(layer, Linear | Conv1D):
        return None
    one, two = layer.weight.shape
    return (int(two), int(one)) if isinstance(layer, Conv1D) else (int(one), int(two))


def _pack_of(adapters: tuple[Adapter, ...]) -> _Pack:
    import torch

    if len(adapters) == 1:
        return _Pack(adapters, {name: (a, b, (int(a.shape[0]),)) for name, (a, b) in adapters[0].pairs.items()})
    pairs = {}
    for module in {name: None for one in adapters for name in one.pairs}:
        there = [one.pairs.get(module) for one in adapters]
        widths = tuple(0 if pair is None else int(pair[0].shape[0]) for pair in there)
        kept = [pair for pair in there if pair is not None]
        pairs[module] = (torch.cat([a for a, _ in kept]), torch.cat([b for _, b in kept], 1), widths)
    return _Pack(adapters, pairs)


def _sides_of(folder: Path) -> dict[str, tuple[Any, Any]]:
    """Name of a module -> A and B, as they are saved. Raises BrokenWeightsError, UnsupportedModelError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(folder / ADAPTER)
    except (SafetensorError, OSError) as error:
        raise BrokenWeightsError(f"The adapter's weights are broken: {error}.", hint="Copy it again.") from error
    sides: dict[str, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        found = _TENSOR.fullmatch(key.removeprefix(_PREFIX))
        if found is None or tensor.dim() != 2:
            raise _refused(f"it changes '{key}', which is more than low-rank matrices of linear layers")
        sides.setdefault(found["module"], {})[found["side"]] = tensor.float()
    if not sides or any(len(pair) != 2 or not len(pair["A"]) for pair in sides.values()):
        raise BrokenWeightsError("The adapter lacks matrices.", hint="Copy it again.")
    return {module: (pair["A"], pair["B"]) for module, pair in sides.items()}


def _scale_of(folder: Path) -> Any:
    """How much an adapter counts, by its rank. Raises BrokenWeightsError, UnsupportedModelError."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenWeightsError(f"adapter_config.json cannot be read: {error}.", hint="Copy it again.") from error
    if not isinstance(config, dict):
        raise BrokenWeightsError("adapter_config.json holds no object.", hint="Copy it again.")
    if config.get("peft_type") != "LORA":
        raise _refused(f"it is of the kind {config.get('peft_type')}")
    for name, what in _MORE.items():
        if config.get(name):
            raise _refused(f"it uses {what}")
    begun = str(config.get("init_lora_weights", "")).lower()
    if begun.startswith(_OTHER_BASES):
        raise _refused(f"it stands beside a base that was changed when its training began ({begun})")
    alpha = config.get("lora_alpha", 8)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise BrokenWeightsError(f"adapter_config.json: 'lora_alpha' is {alpha!r}, no number.", hint="Copy it again.")
    if config.get("use_rslora"):
        return lambda rank: alpha / math.sqrt(rank)
    return lambda rank: alpha / rank


def _refused(why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The adapter cannot stand beside others: {why}.",
        hint="Merge it (llm-os merge ADAPTER) and serve the merged version.",
    )
