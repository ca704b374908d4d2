"""The handles that people hold: what they ask of the kernel, and what they refuse before they ask."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel, data, ended, version

from llm_os.client.answers import predictions
from llm_os.client.deployments import Deployment
from llm_os.client.jobs import Job
from llm_os.client.models import Model
from llm_os.client.references import reference_job
from llm_os.errors import (
    AuthenticationError,
    EmptyDataError,
    InvalidInputError,
    InvalidOptionError,
    JobCancelledError,
    NotFoundError,
    UnavailableError,
    UnsupportedModelError,
)
from llm_os.spec.base import ending_with
from llm_os.spec.jobs import JobState
from llm_os.spec.models import Lineage

TRAINED = {
    "version": "encoder-reviews@1",
    "history": [{"epoch": 1, "loss": 0.5}],
    "epochs_run": 1,
    "best_epoch": 1,
    "stopped_early": False,
    "precision": "fp32",
    "seconds": 1.0,
}


def model(kernel: FakeKernel, **kind: Any) -> Model:
    return Model(kernel, version(**kind))  # type: ignore[arg-type]


def trainable(gpus: int = 0) -> FakeKernel:
    return FakeKernel(
        {"POST /v1/jobs": ended(TRAINED), "GET /v1/models/encoder-reviews@1": version("encoder-reviews")}
        | reports(ended(TRAINED)),
        gpus,
    )


def reports(end: Any, *told: dict[str, Any]) -> dict[str, Any]:
    lines = [{"seq": i, "at": 0.0, **report} for i, report in enumerate(told, 1)]
    page = {"reports": lines, "next": len(lines), "ended": True}
    return {"GET /v1/jobs/job-1/reports": page, "GET /v1/jobs/job-1": end}


# -- data --------------------------------------------------------------------------------------------------------------


def test_rows_are_paged_in_order_and_slices_are_data_sets() -> None:
    rows = data(FakeKernel())
    assert [row["text"] for row in rows] == [f"text {i}" for i in range(1200)]
    part = rows[1100:][5:]
    assert (len(part), part[0]["text"], part[-1]["text"]) == (95, "text 1105", "text 1199")
    assert part.bounds == (1105, None)
    assert [row["text"] for row in rows.head(2)] == ["text 0", "text 1"]
    assert (rows.columns, rows.labels) == (("text", "label"), ("bad", "good"))


def test_reading_through_asks_once_for_each_page() -> None:
    kernel = FakeKernel()
    list(data(kernel))
    assert len(kernel.asked) == 3


def test_a_slice_has_a_fingerprint_of_its_own() -> None:
    rows = data(FakeKernel())
    assert rows.fingerprint == rows[:].fingerprint == "sha256:train"
    assert len({rows[:10].fingerprint, rows[:11].fingerprint, rows.fingerprint}) == 3


def test_a_column_is_not_a_row() -> None:
    with pytest.raises(InvalidInputError, match=r"Rows are found by number.*for row in data"):
        data(FakeKernel())["text"]  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="steps of 1"):
        data(FakeKernel())[::2]
    with pytest.raises(IndexError):
        data(FakeKernel())[1200]


# -- models ------------------------------------------------------------------------------------------------------------


def test_training_moves_the_handle_to_the_new_version() -> None:
    kernel = trainable()
    handle = model(kernel)
    result = handle.train(data(kernel), epochs=10)
    assert (handle.version, result.version, result.epochs_run) == ("encoder-reviews@1", "encoder-reviews@1", 1)


def test_a_slice_for_validation_is_that_slice() -> None:
    kernel = trainable()
    model(kernel).train(data(kernel)[:100], validation=data(kernel, "test")[20:50])
    options = next(sent for path, sent in kernel.asked if path == "POST /v1/jobs")["spec"]["options"]
    assert (options["split"], options["start"], options["stop"]) == ("train", 0, 100)
    assert (options["validation_split"], options["validation_start"], options["validation_stop"]) == ("test", 20, 50)


@pytest.mark.parametrize(
    ("gpus", "said"), [(0, ""), (1, ""), (2, "2 GPUs are granted; this training uses 1 of them.\n")]
)
def test_gpus_that_stay_unused_are_said_in_one_sentence(
    gpus: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = trainable(gpus)
    model(kernel).train(data(kernel))
    assert capsys.readouterr().err == said


def test_no_rows_are_no_data() -> None:
    kernel = FakeKernel()
    empty = data(kernel)[:0]
    for refused in (model(kernel).train, model(kernel).evaluate):
        with pytest.raises(EmptyDataError, match="none"):
            refused(empty)
    with pytest.raises(EmptyDataError):
        model(kernel).train(data(kernel), validation=empty)
    with pytest.raises(InvalidInputError, match="takes a data set, not list"):
        model(kernel).train([])  # type: ignore[call-overload]
    assert kernel.asked == []


@pytest.mark.parametrize("name", ["My Model", "a/b", "", "x" * 65, 3])
def test_a_name_that_cannot_be_is_refused_and_a_like_one_offered(name: Any) -> None:
    kernel = FakeKernel()
    with pytest.raises(InvalidOptionError, match="cannot be the name of the card"):
        model(kernel).train(data(kernel), name=name)
    with pytest.raises(InvalidOptionError, match="cannot be the name of a deployment"):
        model(kernel).deploy(name)
    assert kernel.asked == []


def test_predict_takes_texts_only() -> None:
    kernel = FakeKernel()
    for wrong, kind in ((3, "int"), ([3], "int"), (None, "NoneType"), (data(kernel)[:1], "dict")):
        with pytest.raises(InvalidInputError, match=f"takes texts, not {kind}"):
            predictions(None, wrong)  # type: ignore[arg-type]


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_job_in_the_background_tells_waits_and_can_be_cancelled() -> None:
    log = [{"text": "hello ", "next": 6, "ended": False}, {"text": "world", "next": 11, "ended": False}]
    kernel = trainable()
    kernel.answers |= {
        "GET /v1/jobs/job-1": ended({}, JobState.RUNNING, progress={"step": 3}),
        "GET /v1/jobs/job-1/logs": lambda _: log.pop(0) if log else {"text": "", "next": 11, "ended": True},
        "GET /v1/why/job-1": {"subject": "job-1", "kind": "job", "state": "running", "sentence": "It runs."},
        "POST /v1/jobs/job-1/cancel": ended({}, JobState.RUNNING),
    }
    handle = model(kernel)
    job = handle.train(data(kernel), background=True)
    assert isinstance(job, Job)
    assert (job.state, job.progress, job.logs(), job.why()) == ("running", {"step": 3}, "hello world", "It runs.")
    assert handle.version == "encoder@1"
    job.cancel()
    kernel.answers |= reports(ended(TRAINED))
    assert job.wait(quiet=True).version == handle.version == "encoder-reviews@1"


def test_waiting_for_a_cancelled_job_raises_what_it_ended_with() -> None:
    kernel = trainable()
    job = model(kernel).train(data(kernel), background=True)
    kernel.answers |= reports(ended({}, JobState.CANCELLED, error=JobCancelledError("job-1 was cancelled.").to_dict()))
    with pytest.raises(JobCancelledError, match="job-1 was cancelled"):
        job.wait(quiet=True)


def test_a_wait_that_ends_before_its_job_says_that_the_job_goes_on() -> None:
    kernel = trainable()
    job = model(kernel).train(data(kernel), background=True)
    kernel.answers["GET /v1/jobs/job-1/reports"] = {"reports": [], "next": 0, "ended": False}
    with pytest.raises(TimeoutError, match="it goes on"):
        job.wait(timeout=-1, quiet=True)


# -- deployments -------------------------------------------------------------------------------------------------------


class Refusing:
    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        raise AuthenticationError("This key is not known.")

    def stream(self, messages: Any, options: Any, wishes: Any) -> Any:
        self.classify([])
        yield ""


@pytest.mark.parametrize(("state", "raised"), [("stopped", UnavailableError), ("ready", AuthenticationError)])
def test_a_deployment_that_has_ended_says_so(state: str, raised: type[Exception]) -> None:
    spec = {"name": "mood", "model": "encoder@1"}
    record = {"id": "dep-1", "spec": spec, "version": "encoder@1", "task": "x", "engine": "torch", "state": state}
    kernel = FakeKernel({"GET /v1/deployments/mood": {**record, "session": None, "created_at": 0.0}})
    deployment = Deployment(kernel, "mood", "http://127.0.0.1:1/v1", "key", "encoder@1")  # type: ignore[arg-type]
    deployment._gateway = Refusing()  # type: ignore[assignment]
    with pytest.raises(raised, match="mood is stopped" if state == "stopped" else "not known"):
        deployment.predict("fine")
    pieces = deployment.chat("Hello", stream=True)
    with pytest.raises(raised):
        list(pieces)


# -- adapters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "card"), [(None, "encoder-merged"), ("mood", "mood")])
def test_a_merged_adapter_has_the_name_that_was_asked_for(name: str | None, card: str) -> None:
    done = ended({"version": f"{card}@1"})
    answers = {"POST /v1/jobs": done, f"GET /v1/models/{card}@1": version(card)} | reports(done)
    kernel = FakeKernel(answers)
    record = version(base="sha256:" + "b" * 64).model_copy(update={"format": "adapter"})
    handle = Model(kernel, record)  # type: ignore[arg-type]
    assert handle.merge(name=name).version == f"{card}@1"
    (sent,) = [body for asked, body in kernel.asked if asked == "POST /v1/jobs"]
    assert (sent["spec"]["task"], sent["spec"]["name"]) == ("adapters/merge", card)


def test_a_tuned_model_is_written_in_the_form_of_the_file_that_its_line_began_with() -> None:
    digests = {name: "sha256:" + letter * 64 for name, letter in (("file", "f"), ("floats", "a"), ("tuned", "d"))}
    made = {
        name: version(name).model_copy(
            update={
                "manifest": digests[name],
                "format": "gguf" if name == "file" else "safetensors",
                "lineage": Lineage(inputs={"model": digests[before]} if before else {}),
            }
        )
        for name, before in (("file", None), ("floats", "file"), ("tuned", "floats"))
    }
    done = ended({"version": "tuned-gguf@1"})
    answers = {"POST /v1/jobs": done, "GET /v1/models/tuned-gguf@1": version("tuned-gguf")} | reports(done)
    kernel = FakeKernel(answers | {f"GET /v1/models/{one.manifest}": one for one in made.values()})
    assert Model(kernel, made["tuned"]).to_gguf().version == "tuned-gguf@1"  # type: ignore[arg-type]
    (sent,) = [body["spec"] for asked, body in kernel.asked if asked == "POST /v1/jobs"]
    assert (sent["task"], sent["name"]) == ("sources/gguf", "tuned-gguf")
    assert sent["inputs"] == {"model": digests["tuned"], "base": digests["file"]}
    with pytest.raises(UnsupportedModelError, match="file@1 is GGUF"):
        Model(kernel, made["file"]).to_gguf()  # type: ignore[arg-type]
    alone = made["tuned"].model_copy(update={"lineage": Lineage()})
    with pytest.raises(NotFoundError, match="from which GGUF model tuned@1 was tuned"):
        Model(kernel, alone).to_gguf()  # type: ignore[arg-type]


def test_an_adapter_of_an_unknown_base_is_to_be_merged_first() -> None:
    kernel = FakeKernel()
    foreign = version("foreign").model_copy(update={"format": "adapter"})
    with pytest.raises(NotFoundError) as caught:
        Model(kernel, foreign).to_gguf()  # type: ignore[arg-type]
    assert "llm-os merge foreign --base MODEL" in (caught.value.hint or "")
    assert kernel.asked == []


def test_pytorch_is_asked_of_the_weights_that_were_rounded() -> None:
    judged = "sha256:" + "c" * 64
    assert reference_job(version("a")).inputs == {"model": version("a").manifest}
    assert reference_job(version("a-gguf", weights_of=judged)).inputs == {"model": judged}


@pytest.mark.parametrize(("card", "name"), [("chat", "chat-gguf"), ("a" * 64, "a" * 59 + "-gguf")])
def test_the_end_of_a_name_is_never_what_is_cut_off(card: str, name: str) -> None:
    assert ending_with(card, "-gguf") == name


def test_a_name_that_no_card_can_have_is_refused_before_the_merging() -> None:
    kernel = FakeKernel()
    with pytest.raises(InvalidOptionError, match="'My Model' cannot be the name"):
        model(kernel).merge(name="My Model")
    assert kernel.asked == []
