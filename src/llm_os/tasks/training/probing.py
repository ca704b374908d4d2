"""What a probe learns from features, and how it is put into the model: a head, and perhaps a table of n-grams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_os.models import prompt
from llm_os.tasks.applications.application import Prepared
from llm_os.tasks.training import features, linear, ngrams

if TYPE_CHECKING:
    from llm_os.tasks.training.probe import ProbeOptions


@dataclass(frozen=True, slots=True)
class Learnt:
    """A head, and perhaps a table beside it; their factors are in them already.

    Attributes:
        figures: `loss` of the head on the rows it learnt; `validation_loss` and `validation_accuracy` of both together
            on the rows by which strength and factors were chosen, before those were learnt too.
        because: sentences on what was chosen.
    """

    head: linear.Head
    table: ngrams.Table | None
    figures: Mapping[str, float]
    because: tuple[str, ...]


def learn(options: ProbeOptions, prepared: Prepared, computed: features.Features, *, again: bool) -> Learnt:
    """What the features of the prepared examples (`Labelled`) teach.

    Args:
        again: learn the held-out rows too, at the end.

    Raises:
        EmptyDataError: too few rows. DataError: no token is in two texts.
    """
    train: Any = prepared.train
    valid: Any = prepared.valid
    _, _, module = features.head_of(prepared.model)
    targets = _targets(train)
    held = None if valid is None else (computed.valid, _targets(valid))
    wide = options.ngrams > 0 and held is not None
    solved = linear.solve(
        computed.train,
        targets,
        held,
        options.strength,
        learn_held=again,
        seed=options.seed,
        biased=wide or module.bias is not None,
    )
    because: tuple[str, ...] = (solved.because,) if solved.because else ()
    fresh = [name for name in prepared.heads if ".pooler." not in name and not _in(prepared.model, name, module)]
    if fresh:
        because += (f"Between this model and its head lies '{fresh[0]}', which is random: method='full' learns it.",)
    if not wide or held is None:
        return Learnt(solved.head, None, solved.figures, because)
    behind = prompt.tokens_of(prepared.tokenizer)
    table = ngrams.learn(train.tokens, targets, options.ngrams, behind)
    said = table.outputs(valid.tokens)
    one, other = linear.blend(solved.said, said, held[1])
    both = linear.judge(one * solved.said + other * said, held[1])
    if again:
        table = ngrams.learn([*train.tokens, *valid.tokens], linear.joined(targets, held[1]), options.ngrams, behind)
    figures = {"loss": solved.figures["loss"], **{f"validation_{name}": value for name, value in both.items()}}
    weighed = f"model x {one:.2f} + n-grams x {other:.2f}: loss {both['loss']:.4f} on the same rows."
    return Learnt(solved.head.times(one), table.times(other), figures, (*because, weighed))


def put(prepared: Prepared, learnt: Learnt, context_length: int) -> None:
    """Make it the head of the model, and the model a wide one where there is a table."""
    import torch

    _, _, module = features.head_of(prepared.model)
    with torch.no_grad():
        module.weight.copy_(torch.as_tensor(learnt.head.weight))
        if learnt.table is not None:
            if module.bias is not None:
                module.bias.zero_()
            prepared.model = ngrams.widened(prepared.model, learnt.table, learnt.head.bias, context_length)
            prepared.tokenizer.padding_side = "right"  # the table counts the tokens from the left
        elif module.bias is not None:
            module.bias.copy_(torch.as_tensor(learnt.head.bias))


def _targets(examples: Any) -> linear.Targets:
    """What a classifier's examples want, for the solver."""
    return linear.Targets(examples.targets, examples.classes, examples.soft, examples.weights)


def _in(model: Any, name: str, module: Any) -> bool:
    """Whether a parameter of the model, by name, is one of the module."""
    return any(parameter is model.get_parameter(name) for parameter in module.parameters())
