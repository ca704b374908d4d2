"""Two adapters are trained, and answer beside their base as each does merged; one of them comes while it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "models"))
from tiny_chat import tiny_chat

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.xdist_group("heavy")]

SERVES = """
import json, sys, threading, time
import llm_os
from llm_os.errors import LLMOSError

base = llm_os.load_model(sys.argv[1])
ASK = "Say yes or no"
for name in ("sunny", "rainy"):
    train, _ = llm_os.load_data(f"{sys.argv[2]}/{name}.jsonl")
    llm_os.load_model(base.version).train(
        train, method="lora", merge=False, rank=4, epochs=3, learning_rate=0.02, batch_size=8, name=name
    )
served = base.deploy("chat", engine="torch", dtype="fp32", adapters={"sunny": "sunny@1"})
said = {"base": served.chat(ASK, 12), "sunny": served.chat(ASK, 12, adapter="sunny")}
stream = served.chat("Tell a long story", 150, stream=True)
story = [next(stream)]
begun = time.monotonic()
served.adapters.add("rainy@1")
said["rainy"] = served.chat(ASK, 12, adapter="rainy")
took = time.monotonic() - begun
story += list(stream)
together = {}
def ask(name, adapter):
    together[name] = served.chat(ASK, 12, adapter=adapter)
threads = [threading.Thread(target=ask, args=(n, None if n == "base" else n)) for n in ("base", "sunny", "rainy")]
[one.start() for one in threads], [one.join() for one in threads]
merged = {name: llm_os.load_model(f"{name}@1").generate(ASK, 12) for name in ("sunny", "rainy")}
refusals = []
for wrong in (lambda: served.update("sunny@1"), lambda: served.adapters.add("sunny-merged@1")):
    try:
        wrong()
    except LLMOSError as error:
        refusals.append(str(error))
listed = {name: one.served for name, one in served.adapters.items()}
for name in list(served.adapters):
    served.adapters.remove(name)
served.update("sunny@1", policy={"bake": 0, "watch": 0})  # merged: what engines do that hold no adapters
print(json.dumps({
    "said": said, "together": together, "merged": merged, "refusals": refusals, "listed": listed, "took": took,
    "pieces": len(story),
    "version": served.version, "fused": served.chat(ASK, 12),
}))
"""


def test_trained_adapters_answer_beside_their_base_as_each_does_merged(home: dict[str, str], tmp_path: Path) -> None:
    model = tiny_chat(tmp_path / "tiny")
    for name, word in (("sunny", "good fine"), ("rainy", "bad poor")):
        chats = [
            [{"role": "user", "content": f"Say yes or no {number}"}, {"role": "assistant", "content": word}]
            for number in range(40)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    command = [sys.executable, "-c", SERVES, str(model), str(tmp_path)]
    done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert seen["said"]["sunny"] == seen["merged"]["sunny"] == seen["fused"], seen
    assert seen["said"]["rainy"] == seen["merged"]["rainy"], seen
    assert seen["together"] == seen["said"], "asked together they say what each says alone"
    assert len(set(seen["said"].values())) == 3, seen
    assert seen["listed"] == {"sunny": True, "rainy": True}
    assert seen["pieces"] > 2
    assert "chat carries the adapter" in seen["refusals"][0]
    assert "sunny-merged@1 is no adapter" in seen["refusals"][1]
    assert seen["version"] == "sunny-merged@1"
