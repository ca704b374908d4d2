"""A LSTM that reads in both directions (Hochreiter and Schmidhuber 1997): a small baseline."""

from __future__ import annotations

from typing import Any

from llm_os.models.architecture import Architecture, Sizes


class Lstm(Architecture):
    rate = 2e-3
    attention = False

    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        from llm_os.models.recurrent import RecurrentConfig

        return RecurrentConfig.sized("lstm", sizes, ids)


PLUGIN = Lstm()
