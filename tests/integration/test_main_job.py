"""The five lines and the command line as a newcomer runs them: real processes, a real model, little data."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_os.testing.place import Place

pytestmark = [pytest.mark.net, pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FIVE = """import llm_os
llm_os.set_resources(gpus=[0, 1], cpus=4)
model = llm_os.load_model("transformer")
train_data, test_data = llm_os.load_data("sentic_data", limit=200)
model.train(train_data, epochs=1)
model.evaluate(test_data)
"""
REST = """
print(model.predict("a fine film").label in {"positive", "negative"})
deployment = model.deploy("mood")
print([p.label in {"positive", "negative"} for p in deployment.predict(["good", "bad"])])
print(deployment.key not in repr(deployment), model.version, model.lineage.parent)
"""


Stock = Callable[[str, Place], None]


def test_the_five_lines_run_and_leave_only_what_they_mean_to_keep(place: Place) -> None:
    assert place.cli("up").returncode == 0
    done = place.script(FIVE + REST)
    assert done.returncode == 0, done.stderr
    assert re.match(r"Model evaluation:\nAccuracy: 0\.\d{4}\nLoss: \d\.\d{4}\nTrue\n\[True, True\]\nTrue ", done.stdout)
    assert "transformer-sentic_data@1 transformer@1" in done.stdout
    assert done.stderr.count("Not everything is there: GPU 0, 1 asked for, it has no GPU") == 1
    logs = [path.read_text() for path in place.home.glob("run/attempts/*/log")]
    assert logs
    assert not [log for log in logs if "it/s]" in log]  # bars are for terminals
    assert "ended with this script: mood" in done.stderr
    versions = [version["card"] for version in place.told("models")]
    assert versions == ["transformer", "transformer-sentic_data"]
    until = time.monotonic() + 30
    while place.told("ps")["deployments"] and time.monotonic() < until:
        time.sleep(0.5)
    assert place.told("ps")["deployments"] == []
    judged = place.told("evaluate", "transformer-sentic_data", "sentic_data", "--limit", "200")
    assert judged["count"] == 40
    said = place.cli("predict", "transformer-sentic_data", "good", "bad")
    assert said.returncode == 0, said.stderr
    assert len(said.stdout.splitlines()) == 2
    everything = place.cli("events", "--limit", "1000").stdout.splitlines()
    assert "kernel.started" in everything[0]
    assert place.cli("events", "--limit", "3").stdout.splitlines() == everything[-3:]


def test_ctrl_c_says_what_ended_and_what_goes_on(place: Place, stock: Stock) -> None:
    stock("transformer", place)
    process = place.start("-c", FIVE.replace("epochs=1", "epochs=50, early_stopping=False"))
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "epoch 1 of 50" in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "was asked to end" in rest
    states = {job["spec"]["task"]: job["state"] for job in place.told("jobs")}
    assert states["training/full"] in {"cancelled", "running"}


def test_two_scripts_share_one_kernel(place: Place) -> None:
    text = (
        'import llm_os\nllm_os.load_data("sentic_data", limit=100, seed={seed})\nprint(llm_os.resources().granted.cpus)'
    )
    both = [place.start("-c", text.format(seed=seed)) for seed in (1, 2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0] == outputs[1]
    kernels = [event for event in _events(place) if event["kind"] == "kernel.started"]
    assert len(kernels) == 1


def _events(place: Place) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.said("events", "--json").splitlines()]


def test_background_work_outlives_its_script(place: Place, stock: Stock) -> None:
    stock("transformer", place)
    text = FIVE.replace("epochs=1", "epochs=1, background=True").replace("model.evaluate(test_data)\n", "")
    done = place.script(text)
    assert done.returncode == 0, done.stderr
    until = time.monotonic() + 120
    while time.monotonic() < until:
        jobs = {job["spec"]["task"]: job["state"] for job in place.told("jobs")}
        if jobs["training/full"] == "succeeded":
            return
        time.sleep(1)
    raise AssertionError(jobs)


MISUSES = [
    ('llm_os.load_data("none.csv")', "There is no file"),
    ('llm_os.load_data("sentic")', "There is no data set 'sentic'"),
    ('llm_os.load_model("transfomer")', "Did you mean 'transformer'"),
    ("llm_os.set_resources(cpus=-1)", "set_resources: cpus=-1"),
    ("llm_os.set_resources(gpus=[7], strict=True)", "it has no GPU"),
    ('llm_os.load_model("transformer").predict("x")', "Train it first"),
    (
        'd, _ = llm_os.load_data("sentic_data", limit=100); llm_os.load_model("transformer").train(d, epoch=3)',
        "Did you mean 'epochs'",
    ),
    ('llm_os.load_model("transformer").train(d, learning_rate=0)', "The weights did not change"),
    ('llm_os.load_data("one.csv")', "have the class 'b'"),
    ('llm_os.load_data("one.csv", text="txt")', "Did you mean 'text'"),
    ('llm_os.load_model("./pickled")', "is a pickle"),
    ('llm_os.load_model("./broken")', "are broken"),
    ('llm_os.set_resources(memory="900MiB")', "nothing is wrong"),
    ('llm_os.load_model("transformer").train(d, batch_size=64, method="full")', "needs "),
]
TRIES = """
import json, sys, llm_os
said = []
for code in json.loads(sys.argv[1]):
    try:
        exec(code)
        said.append("nothing is wrong")
    except llm_os.errors.LLMOSError as error:
        said.append(str(error))
print(json.dumps(said))
"""


def test_misuses_end_in_an_error_that_a_newcomer_understands(place: Place, stock: Stock) -> None:
    stock("transformer", place)
    (place.folder / "one.csv").write_text("text,label\n" + "a,b\n" * 10)
    (place.folder / "pickled").mkdir()
    (place.folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (place.folder / "broken").mkdir()
    (place.folder / "broken" / "config.json").write_text("{}")
    (place.folder / "broken" / "tokenizer.json").write_text("{}")
    (place.folder / "broken" / "model.safetensors").write_bytes(b"\x10\x00")
    answers = place.last(TRIES, json.dumps([code for code, _ in MISUSES]))
    for (code, words), said in zip(MISUSES, answers, strict=True):
        assert words in said, (code, said)


def test_unknown_names_are_said_plainly(place: Place) -> None:
    unknown = (("why", "nothing"), ("logs", "nothing"), ("cancel", "job-x"), ("stop", "nothing"))
    for words in unknown:
        assert "No kernel runs" in place.cli(*words).stderr
    place.cli("up")
    for words in unknown:
        done = place.cli(*words)
        assert done.returncode == 3
        assert "There is no" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named_with_the_setting(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = place.cli("up", LLM_OS_MANAGEMENT_PORT=str(taken.getsockname()[1]))
    assert done.returncode != 0
    assert "LLM_OS_MANAGEMENT_PORT" in done.stderr
    assert "Traceback" not in done.stderr


LESS = {'load_data("sentic_data")': 'load_data("sentic_data", limit=200)', "epochs=10": "epochs=1"}
"""What makes a script of the documents short; everything else runs as it stands there."""


def test_the_readme_and_the_example_run_and_print_what_the_readme_shows(place: Place, stock: Stock) -> None:
    """In one script, so that what both begin with (tests/docs checks that it is the same) runs once."""
    stock("smollm2", place)
    blocks = dict.fromkeys(("python", "text"), "")
    for language, block in re.findall(r"```(python|text)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        blocks[language] += block
    script, shown = blocks["python"], blocks["text"].splitlines()
    for long, short in LESS.items():
        assert script.count(long) == 1
        script = script.replace(long, short)
    example = (ROOT / "examples" / "sentiment.py").read_text().partition("model.evaluate(test_data)\n")[2]
    again = 'deployment.stop()\nwhile deployment.state != "stopped": pass\nprint("---")\nimport json, urllib.request\n'
    done = place.script(script + again + example)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("---\n")
    lines = [re.sub(r"\d", "0", line) for line in first.splitlines()]
    for line in shown:
        # What a chat model says is decided by hairs, and so by the processor's arithmetic: it speaks of what was asked.
        begun = re.sub(r"\d", "0", line) if "opposite of hot" not in line else None
        assert any("cold" in found if begun is None else found.startswith(begun) for found in lines), (
            line,
            done.stdout,
        )
    asked, chat = second.splitlines()
    assert re.fullmatch(r"What a wonderful, touching film\. -> (positive|negative) \(0\.\d{3}\)", asked), second
    assert "cold" in chat, chat
