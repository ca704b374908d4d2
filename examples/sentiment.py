"""The main job, end to end: tune a model, judge it, serve it, ask it; then one turn with a chat model."""

import json
import urllib.request

import llm_os

llm_os.set_resources(gpus=[0, 1], cpus=4)
model = llm_os.load_model("transformer")
train_data, test_data = llm_os.load_data("sentic_data")
model.train(train_data, epochs=10)
model.evaluate(test_data)

# Serve the tuned model and ask it over HTTP, as any program could.
deployment = model.deploy("sentiment")
request = urllib.request.Request(
    deployment.url.removesuffix("/v1") + "/classify",
    data=json.dumps({"model": "sentiment", "input": "What a wonderful, touching film."}).encode(),
    headers={"authorization": f"Bearer {deployment.key}", "content-type": "application/json"},
)
with urllib.request.urlopen(request, timeout=60) as reply:
    answer = json.load(reply)["data"][0]
print(f"What a wonderful, touching film. -> {answer['label']} ({answer['score']:.3f})")

# One turn with a chat model.
chat = llm_os.load_model("smollm2")
print(chat.generate("What is the opposite of hot?", max_tokens=40))
