"""The generation loop says what transformers' own loop says, whoever else is in work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_chat import tiny_chat, tiny_gpt2, tiny_llama, tiny_tokenizer

from llm_os.errors import InvalidInputError, UnsupportedModelError
from llm_os.models.generate import Finish, Generation, Sampling, drawn, generate
from llm_os.models.load import load_chat

LENGTHS = (3, 17, 40, 9, 70)


def prompts() -> list[list[int]]:
    import torch

    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, 300, (length,), generator=draw).tolist() for length in LENGTHS]


def reference(model: Any, prompt: list[int], most: int, end: int) -> list[int]:
    import torch

    ids = torch.tensor([prompt])
    whole = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, eos_token_id=end, pad_token_id=0
    )
    return [token for token in whole[0, len(prompt) :].tolist() if token != end]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_answers_in_one_batch_are_those_of_transformers_alone(make: Callable[[Any], Any]) -> None:
    tokenizer = tiny_tokenizer()
    model = make(tokenizer)
    ours = generate(model, prompts(), Sampling(24), ends=[tokenizer.eos_token_id], most=3)
    assert ours == [reference(model, prompt, 24, tokenizer.eos_token_id) for prompt in prompts()]
    assert len({tuple(answer) for answer in ours}) > 1


def test_answers_that_outgrow_the_cache_wait_and_are_the_same() -> None:
    model = tiny_llama(tiny_tokenizer())
    free = generate(model, prompts(), Sampling(30), ends=[], most=5)
    tight = Generation(model, ends=[], budget=90, most=5)
    requests = [tight.add_request(number, prompt, Sampling(30)) for number, prompt in enumerate(prompts())]
    together = 0
    while tight.has_non_finished_requests():
        tight.step()
        together = max(together, len(tight._running))
        assert len(tight._running) * max([len(r.tokens) for r in tight._running], default=0) <= 110
    assert [request.tokens[request.size :] for request in requests] == free
    assert 1 < together < 5


def test_an_answer_ends_at_the_end_of_a_turn_which_is_no_part_of_it() -> None:
    model = tiny_llama(tiny_tokenizer())
    (prompt,) = prompts()[:1]
    (free,) = generate(model, [prompt], Sampling(12), ends=[])
    end = free[5]
    work = Generation(model, ends=[end], budget=100)
    request = work.add_request(1, prompt, Sampling(12))
    while work.has_non_finished_requests():
        work.step()
    assert request.tokens[request.size :] == free[: free.index(end)]
    assert request.finish is Finish.STOP


def test_the_seed_repeats_an_answer_whoever_else_is_served() -> None:
    model = tiny_llama(tiny_tokenizer())
    asked = Sampling(16, temperature=1.0, top_p=0.9, seed=7)
    (alone,) = generate(model, prompts()[1:2], asked, ends=[])
    together = generate(model, prompts(), asked, ends=[], most=5)[1]
    (other,) = generate(model, prompts()[1:2], Sampling(16, temperature=1.0, top_p=0.9, seed=8), ends=[])
    assert alone == together
    assert alone != other


def test_nothing_is_drawn_from_outside_the_nucleus_and_shares_are_kept() -> None:
    import torch

    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    draw = torch.Generator().manual_seed(0)
    seen = [drawn(logits, Sampling(1, temperature=1.0, top_p=0.7, seed=0), draw) for _ in range(2000)]
    assert set(seen) == {0, 1}
    assert abs(seen.count(0) / 2000 - 0.625) < 0.04
    assert drawn(logits, Sampling(1), None) == 0


def test_a_cancelled_answer_leaves_and_the_others_are_not_disturbed() -> None:
    model = tiny_llama(tiny_tokenizer())
    free = generate(model, prompts()[:3], Sampling(20), ends=[], most=3)
    work = Generation(model, ends=[], budget=1000, most=3)
    requests = [work.add_request(number, prompt, Sampling(20)) for number, prompt in enumerate(prompts()[:3])]
    for _ in range(6):
        work.step()
    requests[0].cancel()
    while work.has_non_finished_requests():
        work.step()
    assert len(requests[0].tokens) - requests[0].size < 20
    assert [request.tokens[request.size :] for request in requests[1:]] == free[1:]


def test_a_chat_model_writes_prompts_by_its_own_template(tmp_path: Path) -> None:
    chat = load_chat(tiny_chat(tmp_path / "chat"))
    ids = chat.prompt([{"role": "user", "content": "Hi"}])
    assert chat.tokenizer.decode(ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.text(chat.tokenizer("yes<|im_end|>")["input_ids"]) == "yes"
    assert chat.ends == (chat.tokenizer.eos_token_id,)


def test_a_template_may_refuse_and_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    refusing = load_chat(tiny_chat(tmp_path / "one", "{{ raise_exception('roles must alternate') }}"))
    with pytest.raises(InvalidInputError, match="roles must alternate"):
        refusing.prompt([{"role": "user", "content": "Hi"}])
    evil = load_chat(tiny_chat(tmp_path / "two", "{{ messages.__class__.__mro__[1].__subclasses__() }}"))
    with pytest.raises(InvalidInputError, match="unsafe"):
        evil.prompt([{"role": "user", "content": "Hi"}])


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        load_chat(tiny_chat(tmp_path / "plain", None))


def test_a_repetition_penalty_is_that_of_transformers() -> None:
    import torch

    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    ours = generate(model, prompts(), Sampling(24, repetition_penalty=1.3), ends=[], most=3)
    for prompt, answer in zip(prompts(), ours, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=1.3,
            eos_token_id=319,
            pad_token_id=0,
        )
        assert answer[: whole.shape[1] - len(prompt)] == whole[0, len(prompt) :].tolist()
    assert ours != generate(model, prompts(), Sampling(24), ends=[], most=3)


def test_nothing_is_drawn_but_the_likeliest_tokens_that_were_asked_for() -> None:
    import torch

    logits = torch.tensor([1.0, 3.0, 2.9, 0.5, 2.8])
    draw = torch.Generator().manual_seed(3)
    seen = {drawn(logits, Sampling(1, temperature=1.0, top_k=2), draw) for _ in range(60)}
    assert seen == {1, 2}
