"""The fixed strong opponent: a hand-written loop, batch 32, length-bucketed, fused AdamW, bf16 or fp32. Knows none of
our code.

`bf16` computes under autocast; `masters` has weights in bf16 and fp32 copies of them in the optimizer.
"""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path
from typing import Any

BATCH = 32
POOL = 50 * BATCH


def run(
    model_folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], labels: list[str], precision: str
) -> dict[str, float]:
    """One epoch. Seconds and CPU seconds of the epoch, its tokens without padding, and accuracy on `test`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(42)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=len(labels))
    rows = tokenizer([row["text"] for row in train], truncation=True, max_length=256)["input_ids"]
    targets = torch.tensor([labels.index(row["label"]) for row in train])
    masters = list(model.parameters())
    if precision == "masters":
        masters = [torch.nn.Parameter(p.detach().clone()) for p in model.parameters()]
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
    decay, rest = [p for p in masters if p.ndim > 1], [p for p in masters if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=True)
    order = list(range(len(rows)))
    random.Random(42).shuffle(order)
    batches = []
    for begin in range(0, len(order), POOL):
        pool = sorted(order[begin : begin + POOL], key=lambda i: len(rows[i]))
        batches += [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
    random.Random(43).shuffle(batches)
    steps = len(batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / max(1, 0.1 * steps), 1 - step / steps)
    )
    model.train()
    begun, cpu = time.perf_counter(), time.process_time()
    for indices in batches:
        batch = tokenizer.pad({"input_ids": [rows[i] for i in indices]}, return_tensors="pt")
        bf16 = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
        with bf16:
            logits = model(**batch).logits
        torch.nn.functional.cross_entropy(logits.float(), targets[indices]).backward()
        if precision == "masters":
            for master, parameter in zip(masters, model.parameters(), strict=True):
                master.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if precision == "masters":
            with torch.no_grad():
                torch._foreach_copy_(list(model.parameters()), masters)
    spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    return {**spent, "tokens": sum(map(len, rows)), "accuracy": accuracy(model, tokenizer, test, labels)}


def accuracy(model: Any, tokenizer: Any, test: list[dict[str, Any]], labels: list[str]) -> float:
    import torch

    model.eval()
    right = 0
    if not test:
        return float("nan")
    with torch.inference_mode():
        for begin in range(0, len(test), 64):
            part = test[begin : begin + 64]
            batch = tokenizer(
                [row["text"] for row in part], truncation=True, max_length=256, padding=True, return_tensors="pt"
            )
            said = model(**batch).logits.argmax(-1).tolist()
            right += sum(labels[i] == row["label"] for i, row in zip(said, part, strict=True))
    return right / len(test)
