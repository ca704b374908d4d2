"""Speed of instruction tuning: our task against transformers.Trainer and TRL's SFTTrainer, with the same LoRA adapter.

    python benchmarks/training/language_model.py alpaca_en_demo.json --rows 24 --rounds 5

SmolLM2-135M-Instruct, conversations of at most 256 tokens, 8 in a step, one epoch; loss on the answers alone. Each run
is a process of its own; rounds are interleaved; ratios are of medians. Needs `pip install trl`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from prepared import context

from llm_os import plugins
from llm_os.models.convert import gguf_to_safetensors
from llm_os.models.formats import inspect
from llm_os.models.sources import fetch
from llm_os.spec.artifacts import ArtifactFacts
from llm_os.tasks.applications.conversations import encode
from llm_os.tasks.context import InputFolder
from llm_os.tasks.datasets.kinds import alpaca

LENGTH, BATCH, RATE, HELD = 256, 8, 5e-4, 16
VARIANTS = ("ours", "trainer", "trainer-bf16", "sft", "sft-fp32")
Row = dict[str, Any]


def prepare(cache: Path, source: Path, rows: int) -> None:
    """Float weights, and conversations that fit into LENGTH whole, so that all variants read the same tokens."""
    from transformers import AutoTokenizer

    model, data = cache / "model", cache / "data" / "train"
    if not (model / "model.safetensors").exists():
        model.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            fetch("smollm2", Path(folder))
            gguf_to_safetensors(Path(folder), model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    kept = []
    for row in json.loads(source.read_text()):
        messages = alpaca(row)
        if messages and len(encode(tokenizer, messages)[0]) <= LENGTH:
            kept.append({"messages": messages})
    data.mkdir(parents=True, exist_ok=True)
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept[: rows + HELD]))


def rows_of(cache: Path) -> list[Row]:
    return [json.loads(line) for line in (cache / "data" / "train" / "rows.jsonl").read_text().splitlines()]


def held_out(model: Any, tokenizer: Any, rows: list[Row]) -> float:
    """Mean loss of a token of the answers."""
    import torch

    total = count = 0.0
    with torch.inference_mode():
        for row in rows:
            ids, mask = encode(tokenizer, row["messages"])
            given = torch.tensor([ids])
            labels = torch.where(torch.tensor([mask]), given, -100)
            said = sum(mask)
            total += float(model(input_ids=given, labels=labels, use_cache=False).loss) * said
            count += said
    return total / count


def ours(cache: Path, rows: int, threads: int) -> dict[str, float]:
    from llm_os.models.load import load_language_model

    task = plugins.load("task", "training/lora")
    facts = {"format": "safetensors", **inspect(cache / "model")}
    digest = "sha256:" + "0" * 64
    given = {
        "model": InputFolder(cache / "model", ArtifactFacts(digest=digest, kind="model", size=1, meta=facts)),
        "data": InputFolder(
            cache / "data",
            ArtifactFacts(digest=digest, kind="dataset", size=1, meta={"kind": "chat", "name": "alpaca"}),
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = context(Path(folder), given, threads)
        options = task.Options(
            epochs=1, early_stopping=False, stop=rows, batch_size=BATCH, learning_rate=RATE, checkpoint_every=1e9
        )
        task.run(bench, options)
        entry = json.loads((bench.output / "history.json").read_text())["epochs"][0]
        model, tokenizer = load_language_model(bench.output)
        loss = held_out(model.eval(), tokenizer, rows_of(cache)[rows:])
    return {"seconds": entry["seconds"], "tokens": entry["tokens_per_second"] * entry["seconds"], "loss": loss}


def adapter() -> Any:
    from peft import LoraConfig

    return LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")


def arguments(kind: Any, folder: str, **more: Any) -> Any:
    return kind(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )


def trainer(cache: Path, rows: int, *, bf16: bool) -> dict[str, float]:
    """transformers.Trainer as it comes, with labels for the answers alone."""
    import datasets
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(cache / "model")
    coded = [encode(tokenizer, row["messages"]) for row in rows_of(cache)[:rows]]
    table = datasets.Dataset.from_list(
        [
            {"input_ids": ids, "labels": [i if m else -100 for i, m in zip(ids, mask, strict=True)]}
            for ids, mask in coded
        ]
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(cache / "model"), adapter())
    with tempfile.TemporaryDirectory() as folder:
        peer = Trainer(
            model=model,
            args=arguments(TrainingArguments, folder, bf16=bf16),
            train_dataset=table,
            data_collator=DataCollatorForSeq2Seq(tokenizer),
        )
        begun = time.perf_counter()
        peer.train()
        seconds = time.perf_counter() - begun
    loss = held_out(peer.model.eval(), tokenizer, rows_of(cache)[rows:])
    return {"seconds": seconds, "tokens": float(sum(len(ids) for ids, _ in coded)), "loss": loss}


def sft(cache: Path, rows: int, **precision: bool) -> dict[str, float]:
    """TRL's SFTTrainer as it comes (in bf16), on prompts and completions: it learns from completions alone."""
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(cache / "model")
    taken = rows_of(cache)[:rows]
    table = datasets.Dataset.from_list(
        [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in taken]
    )
    with tempfile.TemporaryDirectory() as folder:
        peer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(cache / "model"),
            args=arguments(SFTConfig, folder, max_length=LENGTH, **precision),
            train_dataset=table,
            processing_class=tokenizer,
            peft_config=adapter(),
        )
        begun = time.perf_counter()
        peer.train()
        seconds = time.perf_counter() - begun
    tokens = float(sum(len(encode(tokenizer, row["messages"])[0]) for row in taken))
    return {"seconds": seconds, "tokens": tokens, "loss": held_out(peer.model.eval(), tokenizer, rows_of(cache)[rows:])}


def one(variant: str, cache: Path, rows: int, threads: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(threads)
    if variant == "ours":
        return ours(cache, rows, threads)
    if variant.startswith("sft"):
        return sft(cache, rows, **({"bf16": False} if variant == "sft-fp32" else {}))
    return trainer(cache, rows, bf16=variant.endswith("bf16"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path, help="alpaca_en_demo.json of llamafactory==0.9.5 (its source archive)")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "llm-os-benchmark-language-model")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.cache, options.rows, options.threads)))
        return
    prepare(options.cache, options.source, options.rows)
    seen: dict[str, list[dict[str, float]]] = {variant: [] for variant in options.variants.split(",")}
    for turn in range(options.rounds):
        for variant in seen:
            command = [sys.executable, __file__, str(options.source), "--one", variant, "--rows", str(options.rows)]
            command += ["--threads", str(options.threads), "--cache", str(options.cache)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{variant} failed:\n{done.stderr}")
            seen[variant].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(turn + 1, variant, seen[variant][-1], file=sys.stderr, flush=True)
    our = statistics.median(run["tokens"] / run["seconds"] for run in seen["ours"])
    for variant, runs in seen.items():
        speeds = [run["tokens"] / run["seconds"] for run in runs]
        middle = statistics.median(speeds)
        print(
            f"{variant:<13} {middle:6.0f} tokens/s ({min(speeds):.0f} to {max(speeds):.0f}), "
            f"held-out loss {statistics.median(run['loss'] for run in runs):.3f}, ours / it {our / middle:.2f}"
        )


if __name__ == "__main__":
    main()
