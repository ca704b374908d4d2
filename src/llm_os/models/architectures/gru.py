"""A GRU that reads in both directions (Cho et al. 2014): a small baseline."""

from __future__ import annotations

from typing import Any

from llm_os.models.architecture import Architecture, Sizes


class Gru(Architecture):
    rate = 2e-3
    attention = False

    def config(self, sizes: Sizes, ids: dict[str, int]) -> Any:
        from llm_os.models.recurrent import RecurrentConfig

        return RecurrentConfig.sized("gru", sizes, ids)


PLUGIN = Gru()
