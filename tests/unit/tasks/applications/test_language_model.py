"""Language models learn from the right tokens, and from each document alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from talking import chat_rows, data_of, model_of, train
from tiny import Bench
from tiny_chat import tiny_gpt2, tiny_llama, tiny_tokenizer

from llm_os.errors import DataError, EmptyDataError, InvalidOptionError, UnsupportedModelError
from llm_os.spec.resources import Capacity
from llm_os.tasks.applications.conversations import encode
from llm_os.tasks.applications.documents import Document, LanguageExamples
from llm_os.tasks.applications.language_model import conversations_of, pack, texts_of
from llm_os.tasks.training.scoring import Scorer

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "yes or no?"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "yes again?"},
    {"role": "assistant", "content": "no 123"},
]


def test_the_loss_sees_the_assistants_tokens_and_its_end_of_turn_and_no_other() -> None:
    tokenizer = tiny_tokenizer()
    ids, mask = encode(tokenizer, TALK)
    assert tokenizer.decode(ids) == "".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in TALK
    )
    said = [tokenizer.decode([token]) for token, counts in zip(ids, mask, strict=True) if counts]
    assert "".join(said) == "yes<|im_end|>no 123<|im_end|>"
    unsaid = "".join(tokenizer.decode([token]) for token, counts in zip(ids, mask, strict=True) if not counts)
    assert unsaid == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nyes or no?<|im_end|>\n<|im_start|>assistant\n\n"
        "<|im_start|>user\nyes again?<|im_end|>\n<|im_start|>assistant\n\n"
    )


def test_only_the_last_answer_counts_where_only_it_was_judged() -> None:
    tokenizer = tiny_tokenizer()
    ids, mask = encode(tokenizer, TALK, last_only=True)
    assert tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts]) == "no 123<|im_end|>"


def test_turns_that_a_template_rewrites_later_are_not_learnt_from() -> None:
    strips = (
        "{% for m in messages %}[{{ m.role }}]{% if loop.last or m.role == 'user' %}{{ m.content }}<|im_end|>"
        "{% else %}...{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    ids, mask = encode(tiny_tokenizer(strips), TALK)
    tokenizer = tiny_tokenizer(strips)
    assert tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts]) == "no 123<|im_end|>"
    with pytest.raises(DataError, match="cannot be found"):
        encode(tiny_tokenizer("{{ messages | length }}"), TALK)


def test_padding_is_never_a_target_although_its_id_ends_every_turn() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    short, long = (Document(*encode(tokenizer, TALK[:3])), Document(*encode(tokenizer, TALK)))
    examples = LanguageExamples([[short], [long]], tokenizer.pad_token_id, Scorer(tiny_llama(tokenizer)))
    batch = examples.collate([0, 1])
    assert batch["targets"].sum(1).tolist() == [sum(short.mask), sum(long.mask)]
    ends = batch["input_ids"][batch["targets"]] == tokenizer.eos_token_id
    assert int(ends.sum()) == 3
    assert examples.weight([0, 1]) == sum(short.mask) + sum(long.mask)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_packed_documents_have_the_losses_they_have_alone(make: Any) -> None:
    import torch

    tokenizer = tiny_tokenizer()
    scorer = Scorer(model := make(tokenizer))
    documents = texts_of(
        [{"text": text} for text in ("What is yes?", "no no no", "Paris.", "good bad 12")], tokenizer, 64
    )
    rows = pack(documents, 40)
    assert len(rows) < len(documents)
    assert {id(d) for row in rows for d in row} == {id(d) for d in documents}

    def losses(rows: Any) -> Any:
        examples = LanguageExamples(rows, tokenizer.pad_token_id, scorer)
        with torch.no_grad():
            return scorer(model, examples.collate(range(len(rows)))).sort().values

    assert torch.allclose(losses(rows), losses([[d] for row in rows for d in row]), atol=1e-5)


def test_losses_by_slices_are_those_of_all_logits_with_the_same_gradients() -> None:
    import torch

    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer)
    scorer = Scorer(model, at_once=3)
    examples = LanguageExamples([[Document(*encode(tokenizer, TALK))]], tokenizer.pad_token_id, scorer)
    batch = examples.collate([0])
    grads = []
    for cheap in (True, False):
        scorer._cheap = cheap
        model.zero_grad()
        loss = examples.loss(model, batch)
        loss.backward()
        grads.append((float(loss.detach()), model.model.embed_tokens.weight.grad.clone()))
    labels = torch.where(batch["targets"], batch["input_ids"], -100)
    known = float(model(input_ids=batch["input_ids"], labels=labels).loss.detach())
    assert abs(grads[0][0] - known) < 1e-5
    assert abs(grads[1][0] - known) < 1e-5
    assert torch.allclose(grads[0][1], grads[1][1], atol=1e-6)


def test_a_model_that_scales_its_logits_is_asked_for_all_of_them() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    config = GraniteConfig(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        logits_scaling=7.0,
    )
    assert not Scorer(GraniteForCausalLM(config))._cheap
    assert Scorer(tiny_llama(tiny_tokenizer()))._cheap


def test_answers_beyond_the_length_are_left_out_and_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {})
    tokenizer = tiny_tokenizer()
    rows = [{"messages": TALK[1:3]}, {"messages": [{"role": "user", "content": "0" * 200}, TALK[2]]}]
    assert len(conversations_of(bench.context, rows, tokenizer, 64)) == 1
    assert "1 of 2 conversations were cut at 64 tokens; 1 of them are left out" in bench.messages[0]
    with pytest.raises(EmptyDataError, match="No answer begins"):
        conversations_of(bench.context, rows[1:], tokenizer, 64)


def test_learns_to_answer_and_the_saved_model_says_it(tmp_path: Path) -> None:
    from llm_os.models.generate import Sampling, generate
    from llm_os.models.load import load_chat

    bench = train(tmp_path / "run", model_of(tmp_path), data_of(tmp_path, "chat", chat_rows()), "full", epochs=40)
    losses = [entry["loss"] for entry in bench.result["history"]]
    assert losses[-1] < 0.1 * losses[0]
    chat = load_chat(bench.output)
    prompts = [chat.prompt([{"role": "user", "content": row["messages"][0]["content"]}]) for row in chat_rows()[:2]]
    said = [chat.text(ids) for ids in generate(chat.model, prompts, Sampling(8), ends=chat.ends)]
    assert said == ["yes", "no"]


def test_goes_on_with_texts_packed_into_rows(tmp_path: Path) -> None:
    rows = [{"text": f"What is {i % 3}? Paris."} for i in range(30)]
    bench = train(tmp_path / "run", model_of(tmp_path), data_of(tmp_path, "text", rows), "full", epochs=8)
    losses = [entry["loss"] for entry in bench.result["history"]]
    assert losses[-1] < 0.6 * losses[0]
    assert bench.result["rows"]["train"] < 30


def test_what_does_not_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    from llm_os import plugins

    task = plugins.load("task", "training/full")
    granted = Capacity(cpus=2, memory=2**33)
    model, data = model_of(tmp_path).facts, data_of(tmp_path, "chat", chat_rows()).facts

    def refused(model: Any, data: Any, **options: Any) -> None:
        task.resources(task.Options(**options), {"model": model, "data": data}, granted)

    def other(**meta: Any) -> Any:
        return model.model_copy(update={"meta": {**model.meta, **meta}})

    with pytest.raises(UnsupportedModelError, match="gguf"):
        refused(other(format="gguf"), data)
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        refused(other(chat_template=False), data)
    with pytest.raises(UnsupportedModelError, match="generates no text"):
        refused(other(task="feature-extraction"), data)
    with pytest.raises(InvalidOptionError, match="'beta' means nothing"):
        refused(model, data, beta=0.2)
