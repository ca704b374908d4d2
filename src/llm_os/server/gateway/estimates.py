"""How many tokens a request will take, before its engine has counted them; knows no tokenizer and no network."""

from __future__ import annotations

from dataclasses import dataclass

_SMOOTHING = 0.05
"""Weight of the newest request in the running means."""


@dataclass(slots=True)
class _Seen:
    """Means of a deployment, as they are before its first answer."""

    bytes_per_token: float = 4.0
    answer: float = 128.0


class Estimates:
    """Learns from what engines report, for each deployment."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def prompt(self, deployment: str, size: int) -> int:
        """Tokens of a body of so many bytes."""
        return 1 + round(size / self._of(deployment).bytes_per_token)

    def guess(self, deployment: str, size: int, most: int | None, answers: int = 1) -> float:
        """Tokens of prompt and answer.

        Args:
            size: bytes of the body.
            most: tokens of an answer at most, where the request says so.
            answers: how many are asked for.
        """
        return self.prompt(deployment, size) + self.answer(deployment, most, answers)

    def answer(self, deployment: str, most: int | None, answers: int = 1) -> float:
        """Tokens of the answers: as many as is usual for the deployment, or as the request allows."""
        usual = self._of(deployment).answer
        return answers * (usual if most is None else min(usual, most))

    def learn(self, deployment: str, size: int, prompt: int, answer: int, answers: int = 1) -> None:
        """An engine reported these tokens for a body of so many bytes, the answers' together."""
        seen = self._seen.setdefault(deployment, _Seen())
        if prompt:
            seen.bytes_per_token += _SMOOTHING * (size / prompt - seen.bytes_per_token)
        seen.answer += _SMOOTHING * (answer / answers - seen.answer)

    def forget(self, served: set[str]) -> None:
        """Drop what was learnt of deployments that are gone."""
        for name in self._seen.keys() - served:
            del self._seen[name]

    def _of(self, deployment: str) -> _Seen:
        return self._seen.get(deployment) or _Seen()
