"""Engines side by side, as people write them."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fake_kernel import FakeKernel, ended, version

from llm_os.client.adapters import fused
from llm_os.client.deployments import Deployment
from llm_os.client.members import changed, named, wished
from llm_os.client.models import Model
from llm_os.errors import InvalidOptionError, NotFoundError


def test_one_engine_or_none_is_written_as_ever() -> None:
    assert wished(None, {"context": 5}) == {"engine": None, "options": {"context": 5}}
    assert wished("torch", {}) == wished(["torch"], {}) == {"engine": "torch", "options": {}}


def test_an_option_is_for_all_engines_or_for_the_one_that_it_names() -> None:
    options = {"context": 4096, "llamacpp.parallel": 8, "openvino": {"context": 512}}
    members = wished(["openvino", "llamacpp"], options)["members"]
    assert members == [
        {"engine": "openvino", "options": {"context": 512}},
        {"engine": "llamacpp", "options": {"context": 4096, "parallel": 8}},
    ]


@pytest.mark.parametrize(
    ("engines", "options", "said"),
    [
        (["a", "a"], {}, "named twice"),
        (["a", "b"], {"c.x": 1}, "'c.x' is for the engine c, which is not among a, b"),
        (["a", 3], {}, "An engine is a name, not 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(engines: list[str], options: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidOptionError, match=said):
        wished(engines, options)


def test_an_update_names_what_changes() -> None:
    assert changed(None, {}, ["a", "b"]) == {"engine": None, "options": None}
    assert changed("a", {}, ["a", "b"]) == {"engine": "a", "options": None}
    assert changed(None, {"x": 1}, ["a"]) == {"engine": None, "options": {"x": 1}}
    both = changed(None, {"b.x": 1}, ["a", "b"])
    assert both == {"members": [{"engine": "a", "options": {}}, {"engine": "b", "options": {"x": 1}}]}
    assert named(both) == ("a", "b")
    assert changed(None, {"x": 1}, ["a", "a"]) == {"engine": "a", "options": {"x": 1}}
    assert named(changed(None, {}, ["a"])) == (None,)


def test_figures_of_one_engine_in_two_ways_are_both_told() -> None:
    kernel = FakeKernel({"GET /v1/deployments/mood": record(("openvino", "openvino", "torch"))})
    deployment = Deployment(kernel, "mood", "http://127.0.0.1:1/v1", "key", "encoder@1")  # type: ignore[arg-type]
    assert list(deployment.parities) == ["openvino", "openvino 2", "torch"]


def test_no_adapter_is_merged_for_a_deployment_that_is_not_there() -> None:
    adapter = version("mood").model_copy(update={"format": "adapter", "meta": {"base": "sha256:" + "b" * 64}})
    kernel = FakeKernel({"GET /v1/models/mood@1": adapter, "GET /v1/deployments/gone": NotFoundError("It is gone.")})
    deployment = Deployment(kernel, "gone", "http://127.0.0.1:1/v1", "key", "encoder@1")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        deployment.update("mood@1")
    assert not any(what == "POST /v1/jobs" for what, _ in kernel.asked)


class Merges(FakeKernel):
    """Knows an adapter of a model in safetensors, and what is made of it; says what was made."""

    def __init__(self, served: str) -> None:
        adapter = version("poems").model_copy(update={"format": "adapter", "meta": {"base": "sha256:" + "b" * 64}})
        super().__init__({
            "GET /v1/models/poems@1": adapter,
            "GET /v1/models/encoder@1": version("encoder").model_copy(update={"format": served}),
            "GET /v1/models/poems-merged@1": version("poems-merged"),
        })  # fmt: skip
        self.made: list[str] = []
        done = ended({"version": "poems-merged@1"})
        lines = {"reports": [], "next": 0, "ended": True}

        def job(body: Any) -> Any:
            self.made.append(body["spec"]["task"])
            return done

        self.answers |= {"POST /v1/jobs": job, "GET /v1/jobs/job-1/reports": lines, "GET /v1/jobs/job-1": done}


@pytest.mark.parametrize(
    ("served", "engines", "said"),
    [
        ("safetensors", [None], ""),
        ("gguf", ["torch"], ""),
        ("gguf", [None], "poems-merged@1 stays in safetensors: It is not recorded from which GGUF model"),
    ],
)
def test_a_merged_adapter_stays_in_safetensors_where_no_engine_needs_gguf_or_none_can_be_written(
    served: str, engines: list[str | None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Merges(served)
    assert fused(kernel, "poems@1", "encoder@1", engines) == "poems-merged@1"  # type: ignore[arg-type]
    assert kernel.made == ["adapters/merge"]
    told = capsys.readouterr().err
    assert said in told
    assert ("stays in safetensors" in told) == bool(said)


def test_for_an_engine_that_was_named_and_reads_gguf_alone_it_is_told_why_it_cannot_be_written() -> None:
    with pytest.raises(NotFoundError, match="from which GGUF model"):
        fused(Merges("safetensors"), "poems@1", "encoder@1", ["openvino"])  # type: ignore[arg-type]


# -- what is sent ------------------------------------------------------------------------------------------------------


def record(engines: tuple[str, ...] = ("llamacpp", "openvino")) -> dict[str, Any]:
    """A deployment that is ready, as the kernel tells it."""
    members = [{"engine": name, "resources": {"memory": 1}} for name in engines]
    served = {"number": 1, "version": "encoder@1", "task": "x", **members[0], "beside": members[1:]}
    return {
        "id": "dep-1", "spec": {"name": "mood", "model": "encoder@1", "check": False}, "version": "encoder@1",
        "task": "x", "engine": engines[0], "state": "ready", "session": None, "created_at": 0.0, "history": [served],
    }  # fmt: skip


def sent(kernel: FakeKernel, request: str) -> Any:
    (body,) = [body for asked, body in kernel.asked if asked == request]
    return body


def test_deploying_with_two_engines_sends_both_with_their_options() -> None:
    created = {"deployment": record(), "key": "k", "url": "http://127.0.0.1:1/v1"}
    kernel = FakeKernel({"POST /v1/deployments": created})
    deployed = Model(kernel, version()).deploy(  # type: ignore[arg-type]
        "mood", check=False, engine=["llamacpp", "openvino"], context=512, llamacpp={"parallel": 8}, replicas=2
    )
    assert deployed.name == "mood"
    spec = sent(kernel, "POST /v1/deployments")["spec"]
    assert [(one["engine"], one["options"]) for one in spec["members"]] == [
        ("llamacpp", {"context": 512, "parallel": 8}),
        ("openvino", {"context": 512}),
    ]
    assert (spec["engine"], spec["options"], spec["replicas"]) == (None, {}, 2)


@pytest.mark.parametrize(
    ("asked", "members"),
    [
        ({"engine": ["openvino", "torch"]}, [("openvino", {}), ("torch", {})]),
        ({"context": 9}, [("llamacpp", {"context": 9}), ("openvino", {"context": 9})]),
        ({"engine": "torch"}, None),
    ],
)
def test_an_update_sends_the_engines_that_shall_be(asked: dict[str, Any], members: Any) -> None:
    rollout = {"target": record()["history"][0], "policy": {}, "asked": "encoder@1", "started_at": 0, "since": 0}
    kernel = FakeKernel(
        {
            "GET /v1/deployments/mood": record(),
            "POST /v1/deployments/mood/update": {**record(), "rollout": rollout},
        }
    )
    deployment = Deployment(kernel, "mood", "http://127.0.0.1:1/v1", "key", "encoder@1")  # type: ignore[arg-type]
    assert list(deployment.parities) == ["llamacpp", "openvino"]
    deployment.update(wait=False, **asked)
    body = sent(kernel, "POST /v1/deployments/mood/update")
    found = body["members"]
    assert (found and [(one["engine"], one["options"]) for one in found]) == members
    assert body["engine"] == (asked["engine"] if members is None else None)
