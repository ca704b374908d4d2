"""The interface of an architecture made from scratch: its configuration for given sizes. Knows no data and no job.

A plugin file in `architectures` holds one subclass and ends with `PLUGIN = TheClass()`. The weights are random, drawn
from a seed; the folder that is made loads, trains, is saved and served as any other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llm_os.errors import InvalidOptionError


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a model shall be.

    Attributes:
        layers: blocks (of each half, in an encoder-decoder). width: of a token's state. heads: of the attention.
        vocabulary: tokens that have a vector. context: tokens of the longest text.
        dropout: between layers.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int
    dropout: float


class Architecture(ABC):
    """See the module.

    Class attributes:
        task: what it is made for; a head for classes comes with training.
        rate: highest learning rate that suits its random weights (AdamW).
        attention: whether `heads` means something.
        alphabet: `words` or `bytes`: how its tokenizer cuts texts when nobody says.
    """

    task: ClassVar[str] = "feature-extraction"
    rate: ClassVar[float]
    attention: ClassVar[bool] = True
    alphabet: ClassVar[str] = "words"

    @abstractmethod
    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        """A configuration of transformers.

        Args:
            ids: `pad_token_id`, `bos_token_id` and `eos_token_id` of the tokenizer.
        """

    def check(self, sizes: Sizes) -> None:
        """Raises InvalidOptionError for sizes that do not fit each other. Pure."""
        if self.attention and sizes.width % (2 * sizes.heads):
            raise InvalidOptionError(
                f"A width of {sizes.width} cannot be divided among {sizes.heads} heads of an even width.",
                hint=f"For example width={max(1, sizes.width // (2 * sizes.heads)) * 2 * sizes.heads}.",
            )


def build(architecture: Architecture, sizes: Sizes, tokenizer: Any, seed: int) -> Any:
    """The model with random weights: same sizes, tokenizer and seed, same weights."""
    import torch
    import transformers

    from llm_os.models import recurrent
    from llm_os.models.load import HEADS

    recurrent.register()
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(seed)
    return getattr(transformers, HEADS[architecture.task]).from_config(architecture.config(sizes, ids))


def use_vectors(model: Any, tokenizer: Any, folder: Path) -> int:
    """Begin with the word vectors in `folder`; how many tokens got one (see tasks/preparation/vocabulary.py).

    Raises:
        InvalidOptionError: the model is not as wide as the vectors are.
    """
    import torch
    from safetensors.torch import load_file

    from llm_os.models.vocabulary import WORD

    vectors = load_file(folder / "vectors.safetensors")["vectors"]
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    table = model.get_input_embeddings().weight
    if table.shape[1] != vectors.shape[1]:
        raise InvalidOptionError(
            f"The word vectors have {vectors.shape[1]} numbers, the model is {table.shape[1]} wide.",
            hint=f"Set width={vectors.shape[1]}.",
        )
    known = {word: row for row, word in enumerate(words) if 2 <= row < len(vectors)}  # after padding and unknown
    count = 0
    with torch.no_grad():
        # As far apart from each other as the model's own vectors are, so that the rest of it starts as usual.
        scale = float(table.std() / vectors[2:].std()) if len(vectors) > 2 else 1.0
        for token, number in tokenizer.get_vocab().items():
            row = known.get(token.removeprefix(WORD))
            if row is not None and number != tokenizer.pad_token_id:
                table[number] = vectors[row] * scale
                count += 1
    return count
