"""What openvino-genai says of prompts that begin alike is what it says of each alone, whoever asks or leaves."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import pytest
from tests.integration.backends import loaded

from llm_os.spec.parity import Reference
from llm_os.workers.backend import Backend
from llm_os.workers.requests import ChatRequest

GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2-reference.json"
SMALL = {"cache_tokens": 4096, "context": 2048}


async def surely(backend: Backend, ids: Sequence[int]) -> float:
    """Logarithm of how likely the likeliest token is."""
    request = ChatRequest(prompt=tuple(ids), max_tokens=1, temperature=0.0, logprobs=0)
    return sum([one.logprob async for piece in backend.chat(request) for one in piece.scores])


async def said(backend: Backend, ids: Sequence[int], most: int = 1) -> list[int]:
    request = ChatRequest(prompt=tuple(ids), max_tokens=most, temperature=0.0)
    return [token async for piece in backend.chat(request) for token in piece.ids]


def words() -> list[list[int]]:
    """Token ids of real texts."""
    return [list(text.ids) for text in Reference.model_validate_json(GOLDEN.read_bytes()).texts]


@pytest.mark.slow
async def test_bursts_that_go_on_from_where_others_ended(tmp_path: Path, sample_model: Callable[[str], Path]) -> None:
    """Eight at once that share a block which is full in part; without care a third of them gets a wrong token."""
    texts = [ids for ids in words() if len(ids) >= 40]
    rounds = [(text[:24], [text[:24] + other[:20] for other in texts[:8]]) for text in texts[8:14]]
    async with loaded(tmp_path, sample_model("smollm2"), **SMALL) as backend:
        for begin, _ in rounds:
            await said(backend, begin)
        together = [await asyncio.gather(*(said(backend, one) for one in burst)) for _, burst in rounds]
    async with loaded(tmp_path, sample_model("smollm2"), **SMALL) as backend:
        alone = [[await said(backend, one) for one in burst] for _, burst in rounds]
    same = [one == other for one, other in zip(chain(*together), chain(*alone), strict=True)]
    assert sum(same) >= 46, "two of 48 may be as likely, and rounded"


@pytest.mark.slow
async def test_who_leaves_while_his_prompt_is_read_leaves_nothing_wrong(
    tmp_path: Path, sample_model: Callable[[str], Path]
) -> None:
    """The engine would hand the next one who asks the same a block that nobody has filled: no number, and it breaks."""
    texts = words()
    prompt = [token for ids in texts for token in ids][:1500]
    asked = [prompt[:size] for size in range(545, 577, 2)]
    async with loaded(tmp_path, sample_model("smollm2"), **SMALL) as backend:
        alone = [await surely(backend, one) for one in asked]
    async with loaded(tmp_path, sample_model("smollm2"), **SMALL) as backend:
        # Beside twenty streams 492 tokens are read in a step: the last block of them has 12 of 32.
        beside = [asyncio.create_task(said(backend, ids, 60)) for ids in texts[:20]]
        await asyncio.sleep(1.0)
        leaving = asyncio.create_task(said(backend, prompt))
        await asyncio.sleep(0.2)
        leaving.cancel()
        after = [await surely(backend, one) for one in asked]
        assert all(await asyncio.gather(*beside))
    off = [abs(one - other) for one, other in zip(after, alone, strict=True)]
    assert sum(off) / len(off) < 0.3, "rounding makes 0.1 nats of it, twenty unread tokens make 1"
