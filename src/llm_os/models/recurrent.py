"""LSTM and GRU as models of transformers, so that they load, train, are saved and served like the others.

Nothing remote: `register` tells the Auto classes of this process about them. Knows no data and no job.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput, TokenClassifierOutput

if TYPE_CHECKING:
    from llm_os.models.architecture import Sizes

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentConfig(PreTrainedConfig):
    """Sizes of a recurrent network; `hidden_size` is what both directions give together, and the embeddings' width."""

    model_type = "llm-os-recurrent"

    def __init__(
        self,
        cell: str = "lstm",
        vocab_size: int = 8000,
        hidden_size: int = 256,
        num_hidden_layers: int = 1,
        max_position_embeddings: int = 512,
        dropout: float = 0.1,
        initializer_range: float = 0.1,
        **further: Any,
    ) -> None:
        self.cell = cell
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.max_position_embeddings = max_position_embeddings
        self.dropout = dropout
        self.initializer_range = initializer_range
        super().__init__(**further)

    @classmethod
    def sized(cls, cell: str, sizes: Sizes, ids: dict[str, int]) -> RecurrentConfig:
        return cls(
            cell,
            vocab_size=sizes.vocabulary,
            hidden_size=sizes.width,
            num_hidden_layers=sizes.layers,
            max_position_embeddings=sizes.context,
            dropout=sizes.dropout,
            **ids,
        )


class _Recurrent(PreTrainedModel):
    config_class = RecurrentConfig
    base_model_prefix = "recurrent"

    def _init_weights(self, module: Any) -> None:
        """Uniform in 1/sqrt(width), as torch does for its own; embeddings normal, the forget gate of an LSTM open
        (Jozefowicz et al. 2015, section 3.2)."""
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
            if module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RNNBase):
            for name, weight in module.named_parameters():
                if weight.ndim > 1:
                    (nn.init.orthogonal_ if "hh" in name else nn.init.xavier_uniform_)(weight)
                else:
                    nn.init.zeros_(weight)
                    if self.config.cell == "lstm" and "ih" in name:
                        nn.init.ones_(weight[module.hidden_size : 2 * module.hidden_size])


class RecurrentModel(_Recurrent):
    """Token ids [texts, tokens] to states [texts, tokens, width]; padding at the right is never read."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.cells = CELLS[config.cell](
            config.hidden_size,
            config.hidden_size // 2,
            config.num_hidden_layers,
            batch_first=True,
            bidirectional=True,
            dropout=config.dropout if config.num_hidden_layers > 1 else 0.0,
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def set_input_embeddings(self, value: Any) -> None:
        self.embeddings = value

    def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> BaseModelOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        embedded = self.dropout(self.embeddings(input_ids))
        lengths = attention_mask.sum(1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.cells(packed)
        whole, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=input_ids.shape[1])
        return BaseModelOutput(last_hidden_state=whole)


class RecurrentForSequenceClassification(_Recurrent):
    """Mean and maximum over the states of a text, and one layer on them."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> SequenceClassifierOutput:
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self.recurrent(input_ids, attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        highest = states.masked_fill(mask == 0, torch.finfo(states.dtype).min).max(1).values
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(torch.cat([mean, highest], -1))))


class RecurrentForTokenClassification(_Recurrent):
    """One layer on each state."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.recurrent = RecurrentModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids: Any, attention_mask: Any = None, **_: Any) -> TokenClassifierOutput:
        states = self.recurrent(input_ids, attention_mask).last_hidden_state
        return TokenClassifierOutput(logits=self.classifier(self.dropout(states)))


@cache
def register() -> None:
    """Make the Auto classes of this process know them."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoModelForTokenClassification

    AutoConfig.register(RecurrentConfig.model_type, RecurrentConfig)
    AutoModel.register(RecurrentConfig, RecurrentModel)
    AutoModelForSequenceClassification.register(RecurrentConfig, RecurrentForSequenceClassification)
    AutoModelForTokenClassification.register(RecurrentConfig, RecurrentForTokenClassification)
