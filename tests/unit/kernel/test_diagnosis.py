"""Each cause from real evidence: provoked here where that is possible, else from lines that engines really wrote."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_os.drivers import host
from llm_os.errors import BrokenWeightsError, DiskFullError, PortInUseError, UnavailableError, UnsupportedModelError
from llm_os.kernel.diagnosis import Death, Evidence, diagnose, where_the_time_goes
from llm_os.models.load import load_chat
from llm_os.server.listening import on_tcp
from llm_os.spec.alerts import Flow
from llm_os.spec.diagnoses import Cause, Diagnosis
from llm_os.testing.home_bed import write_toy_model
from llm_os.workers import stub
from llm_os.workers.serving import explain


def of(log: str, **fields: Any) -> Evidence:
    death = Death("att-1", at=90.0, lived=5.0, code=1, log=tuple(log.splitlines()), held=2**30)
    return Evidence("chat", deaths=(death,), now=100.0, **fields)


def only(evidence: Evidence) -> Diagnosis:
    (found,) = diagnose(evidence)
    assert found.evidence
    assert found.next
    return found


def dying(program: str, **limits: int) -> str:
    """Standard error of a Python program that ends badly, in a process with limits of its own."""

    def bound() -> None:
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, preexec_fn=bound)
    assert done.returncode != 0
    return done.stderr


def test_a_process_that_got_no_more_memory() -> None:
    log = dying("print(len(bytearray(2**31)))", RLIMIT_AS=2**30)
    found = only(of(log, memory_available=2**28))
    assert found.cause is Cause.OUT_OF_MEMORY
    assert found.evidence == (
        "MemoryError",
        "it was granted 1.0 GiB",
        "256.0 MiB of the machine are available now",
    )


@pytest.mark.parametrize(
    ("line", "of_device"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of "
            "15.77 GiB of which 1.12 GiB is free.",
            True,
        ),
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4095.05 MiB on device 0: cudaMalloc failed: out of "
            "memory",
            True,
        ),
        ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", True),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", False),
        ("terminate called after throwing an instance of 'std::bad_alloc'", False),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)",
            False,
        ),
        ("memory allocation of 8589934592 bytes failed", False),
    ],
)
def test_engines_that_ran_out_of_memory_in_their_own_words(line: str, of_device: bool) -> None:
    found = only(of(f"loading\n{line}\n"))
    assert found.cause is Cause.OUT_OF_MEMORY
    assert ("of its accelerator" in found.sentence) is of_device
    assert line in found.evidence


def test_a_kill_that_the_system_counted_is_lack_of_memory_and_one_it_did_not_count_is_not() -> None:
    counted = Death("a", 1, 5.0, signal=9, message=stub.ending(9, asked=False, killed=1)["message"])
    assert only(Evidence("chat", deaths=(counted,))).cause is Cause.OUT_OF_MEMORY
    guessed = Death("a", 1, 5.0, signal=9, message=stub.ending(9, asked=False)["message"])
    assert diagnose(Evidence("chat", deaths=(guessed,))) == ()


def test_a_worker_that_ran_out_of_memory_says_so_in_its_report(tmp_path: Path) -> None:
    error = explain(MemoryError("no room"), tmp_path).to_dict()
    assert only(Evidence("chat", error=error)).cause is Cause.OUT_OF_MEMORY


def test_weights_that_were_cut_off_in_the_library_s_words(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\x40\x00\x00\x00\x00\x00\x00\x00{")
    log = dying(f"from safetensors import safe_open\nsafe_open({str(file)!r}, framework='np')")
    assert only(of(log)).cause is Cause.BAD_WEIGHTS


def test_a_gguf_of_another_kind_in_the_library_s_words(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"NOPE" + bytes(64))
    log = dying(f"from gguf import GGUFReader\nGGUFReader({str(file)!r})")
    assert only(of(log)).cause is Cause.BAD_WEIGHTS


@pytest.mark.parametrize(
    "line",
    [
        "gguf_init_from_file_impl: invalid magic characters: 'NOPE', expected 'GGUF'",
        "llama_model_load: error loading model: tensor 'blk.3.ffn_down.weight' data is not within the file bounds, "
        "model is corrupted or incomplete",
        "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
    ],
)
def test_engines_that_refused_weights_in_their_own_words(line: str) -> None:
    assert only(of(line)).cause is Cause.BAD_WEIGHTS


def test_our_own_refusal_of_weights_is_known_by_its_code() -> None:
    error = BrokenWeightsError("It is 3 bytes long.", hint="Copy it again.").to_dict()
    assert only(Evidence("job-1", kind="job", error=error)).cause is Cause.BAD_WEIGHTS


def test_a_port_that_is_really_taken_and_by_whom() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError) as caught:
            on_tcp(port, "LLM_OS_GATEWAY_PORT")
        found = only(Evidence("The gateway", kind="gateway", error=caught.value.to_dict(), listener=host.listener))
        log = dying(f"import socket; socket.create_server(('127.0.0.1', {port}))")
    assert (found.cause, "LLM_OS_GATEWAY_PORT" in found.next) == (Cause.PORT_TAKEN, True)
    assert f"port {port} is taken by" in found.sentence
    assert "(process " in found.sentence
    assert only(of(log)).cause is Cause.PORT_TAKEN
    assert f"port {port}" in only(of(f"[Errno 98] error while attempting to bind on address ('127.0.0.1:{port}'): "
                                     "address already in use")).sentence  # fmt: skip


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    log = dying("import no_such_engine.parts")
    found = only(of(log, extra_of=lambda name: "fast" if name == "no_such_engine" else None))
    assert found.cause is Cause.DEPENDENCY
    assert "needs the package no_such_engine" in found.sentence
    assert found.next.startswith("pip install 'llm-os[fast]'")
    assert only(of(log)).next.startswith("pip install no_such_engine,")


@pytest.mark.parametrize(
    "log",
    [
        "ImportError: /x/_C.so: undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationE",
        "/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /x/libopenvino.so)",
    ],
)
def test_libraries_of_another_version_in_their_own_words(log: str) -> None:
    assert only(of(log)).cause is Cause.DEPENDENCY


@pytest.mark.parametrize("program", ["from os import no_such_name", "import ctypes; ctypes.CDLL('libno_such.so.1')"])
def test_a_library_that_does_not_fit_is_told_with_the_packages_that_do_not(program: str) -> None:
    log = dying(program)
    found = only(of(log, misfits=lambda: ("torch: 2.14.0 is installed, >=2.13,<2.14 is wanted",)))
    assert found.cause is Cause.DEPENDENCY
    assert "torch: 2.14.0 is installed, >=2.13,<2.14 is wanted" in found.evidence


def test_what_a_library_can_do_without_is_no_cause() -> None:
    early = "libcuda.so.1: cannot open shared object file\n" + "step\n" * 20
    assert diagnose(of(early)) == ()


def test_a_disk_without_room() -> None:
    log = dying("open('/dev/full', 'w', buffering=1).write('x' * 99999)")
    found = only(of(log, disk_free=5 * 2**20))
    assert (found.cause, found.evidence[-1]) == (Cause.DISK_FULL, "5.0 MiB are free on the home's disk now")
    error = DiskFullError("There is nothing left of it.").to_dict()  # known by its code
    assert only(Evidence("job-1", kind="job", error=error)).cause is Cause.DISK_FULL


def test_a_model_without_a_template(tmp_path: Path) -> None:
    write_toy_model(tmp_path / "writer", "ToyForCausalLM")
    with pytest.raises(UnsupportedModelError) as caught:
        load_chat(tmp_path / "writer")
    assert only(Evidence("chat", error=caught.value.to_dict())).cause is Cause.TEMPLATE_MISSING
    log = (
        "ValueError: Cannot use chat template functions because tokenizer.chat_template is not set and no template "
        "argument was passed!"
    )
    assert only(of(log)).cause is Cause.TEMPLATE_MISSING


def test_a_loop_of_deaths_has_times_and_last_words() -> None:
    deaths = tuple(
        Death(f"att-{n}", at=100.0 + 10 * n, lived=1.0 + n, signal=11, log=("", f"Segmentation fault {n}"))
        for n in range(3)
    )
    error = UnavailableError("The replica of chat died 4 times.").to_dict()
    found = only(Evidence("chat", error=error, deaths=deaths, lives=False, now=130.0))
    assert found.cause is Cause.CRASH_LOOP
    assert found.sentence == "chat died 3 times, one after the other, the last time by signal 11. It was given up."
    assert found.evidence == (
        "it died 30.0 s, 20.0 s, 10.0 s ago",
        "it lived 1.0 s to 3.0 s",
        "last words: Segmentation fault 2",
    )
    assert diagnose(Evidence("chat", deaths=deaths[:1])) == ()


def test_the_surest_cause_comes_before_the_loop_it_makes() -> None:
    death = Death("a", 1.0, 1.0, code=1, log=("MemoryError",))
    found = diagnose(Evidence("chat", deaths=(death, death)))
    assert [one.cause for one in found] == [Cause.OUT_OF_MEMORY, Cause.CRASH_LOOP]


def a_flow(**fields: float) -> Flow:
    given = {"at": 95.0, "seconds": 300.0, "requests": 40.0, "queue_seconds": 3.0, "answer_seconds": 4.0,
             "in_flight": 64, "waiting": 20, "slots": 64}  # fmt: skip
    return Flow.model_validate(given | fields)


def test_slow_because_queued_says_where_the_time_goes() -> None:
    found = only(Evidence("chat", flow=a_flow(), now=100.0))
    assert found.cause is Cause.QUEUED
    assert "75% of their time they wait for a slot" in found.sentence
    assert found.evidence == (
        "40 requests in the last 5 min 0 s, 4.0 s each, of which 3.0 s (75%) in the queue",
        "64 of 64 slots in use, 20 waiting, 5.0 s ago",
    )


@pytest.mark.parametrize(
    "flow",
    [a_flow(queue_seconds=0.9), a_flow(queue_seconds=0.05, answer_seconds=0.06), a_flow(requests=0), None],
)
def test_who_hardly_waits_is_not_slow_because_queued(flow: Flow | None) -> None:
    assert diagnose(Evidence("chat", flow=flow)) == ()


def test_without_requests_nothing_is_said_of_their_time() -> None:
    assert where_the_time_goes(a_flow(requests=0), 100.0) == ("no request was answered in the last 5 min 0 s",)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"throttled": 0.4}, "held back 0.40 s of each second"),
        ({"heated": 12}, "heat 12 times"),
        ({"clock": 0.4, "flow": a_flow(queue_seconds=0)}, "at 40% of their highest clock"),
    ],
)
def test_slow_because_the_processor_is_held_back(fields: dict[str, Any], says: str) -> None:
    found = only(Evidence("chat", **fields))
    assert found.cause is Cause.THROTTLED
    assert says in found.evidence[0]


def test_what_has_ended_is_not_slow() -> None:
    assert diagnose(Evidence("job-1", kind="job", throttled=0.9, lives=False)) == ()


@pytest.mark.parametrize(
    "fields",
    [{"throttled": 0.05}, {"heated": 0}, {"clock": 0.4}, {"clock": 0.4, "flow": a_flow(queue_seconds=0, in_flight=0)}],
)
def test_a_clock_that_rests_while_nothing_runs_is_no_cause(fields: dict[str, Any]) -> None:
    assert diagnose(Evidence("chat", **fields)) == ()
