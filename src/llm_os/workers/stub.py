"""Runs the program of one attempt folder to its end and writes how it ended; knows no kernel and no pydantic.

`python -I -S .../workers/stub.py <attempt folder>` (the launcher starts it so; `-m llm_os.workers.stub` works too).
Standard library only, because every start of anything waits for it. It writes `process.json` and `exit.json` by hand
in the shapes of `spec.processes.Handle` and `spec.attempts.Exit`.

Promises: one stub at most runs an attempt, ever (an exclusive lock, and `process.json` is never overwritten). The
program dies with its stub. When `exit.json` appears, no process of the attempt that descends from the stub is alive.

On standard output it says one line to the launcher: `running`, `already` (run or sealed before) or `failed: why`.

`stub.py --spare <spare folder>` starts the program of that folder, which loads libraries and waits (`workers.spare`),
and then itself waits for a line on standard input: the attempt folder that both shall serve. End of input ends both.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOCK_PATIENCE = 10.0
"""Seconds to wait for a lock whose holder has neither started nor sealed the attempt yet."""
EXIT_BYTES = 4096
"""Room reserved for `exit.json` before the program may fill the disk."""
ATTEMPT = ".attempt"
"""In the folder of a spare: a link to the attempt that its processes, which carry the spare's mark, belong to."""
ALLOWED = frozenset(
    (
        *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL", "TERM", "LD_LIBRARY_PATH"),
        *("VIRTUAL_ENV", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "CUDA_HOME", "CUDA_PATH"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "TRANSFORMERS_OFFLINE"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    )
)
ALLOWED_PREFIXES = ("LC_", "PYTHON", "LLM_OS_", "SSL_", "PIP_", "NVIDIA_")
ALLOWED_SUFFIXES = ("_PROXY",)
WITHHELD = frozenset({"LLM_OS_DATABASE"})
"""The URL may hold a password, and no worker touches the database."""


def environment(base: Mapping[str, str], spec: Mapping[str, Any], folder: str) -> dict[str, str]:
    """The program's environment: an allow-list of `base`, the limits of the attempt, then `spec["env"]`."""
    clean = {
        name: value
        for name, value in base.items()
        if name not in WITHHELD
        and (name in ALLOWED or name.startswith(ALLOWED_PREFIXES) or name.endswith(ALLOWED_SUFFIXES))
    }
    threads = str(spec["threads"])
    clean.update(
        OMP_NUM_THREADS=threads,
        MKL_NUM_THREADS=threads,
        OPENBLAS_NUM_THREADS=threads,
        RAYON_NUM_THREADS=threads,  # tokenizers
        CUDA_DEVICE_ORDER="PCI_BUS_ID",  # the order of NVML, whose indices the ledger uses
        CUDA_VISIBLE_DEVICES=",".join(str(index) for index in spec["devices"]),
    )
    clean.update(spec["env"])
    clean["LLM_OS_ATTEMPT_FOLDER"] = folder  # by this a sweep finds processes whose stub is gone
    return clean


def take_lock(folder: str) -> int | None:
    """The lock's descriptor, or None when the attempt was started or sealed by another."""
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A launcher may hold it for a moment to look or to seal; another stub holds it to the end.
            if _decided(folder) or time.monotonic() > deadline:
                return None
            time.sleep(0.005)
            continue
        if _decided(folder):
            return None
        return lock


def _decided(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name)) for name in ("process.json", "exit.json"))


def write_whole(path: str, data: Mapping[str, Any]) -> None:
    """Write JSON beside `path`, fsync, rename. A reserved file of that name is written over in place."""
    beside = path + ".tmp"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        text = json.dumps(data).encode()
        if os.write(file, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), beside)
        os.ftruncate(file, len(text))
        os.fsync(file)
    finally:
        os.close(file)
    os.rename(beside, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reserve(path: str) -> None:
    """Take the disk blocks that `write_whole(path)` will need."""
    file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, EXIT_BYTES)
    finally:
        os.close(file)


def identity(attempt: str) -> dict[str, Any]:
    """A Handle of this process."""
    with open("/proc/self/stat", "rb") as file:
        start_time = int(file.read().rpartition(b")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as text:
        boot_id = text.read().strip()
    return {
        "attempt": attempt,
        "launcher": "local",
        "pid": os.getpid(),
        "start_time": start_time,
        "boot_id": boot_id,
    }


class Run:
    """The program of one attempt, from its start to the death of its last descendant."""

    def __init__(self) -> None:
        self.child = 0
        """Process id and group of the program, 0 before it was started."""
        self.asked = False
        self.for_nobody = False
        """It waits, and belongs to no attempt yet: asked to stop, it ends."""
        self._feed: int | None = None
        """Where a program that waits is told what it shall become."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._forward)

    def _prctl(self, option: int, value: int) -> None:
        if self._libc.prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _forward(self, *_: object) -> None:
        self.asked = True
        if self.for_nobody:
            raise SystemExit(0)
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGTERM)

    def start(self, argv: list[str], env: Mapping[str, str], cwd: str, log: int, *, waits: bool = False) -> None:
        """Start it in a process group of its own. Raises OSError when it cannot be executed.

        Args:
            waits: it reads on its standard input what it shall become.
        """
        read_end, write_end = os.pipe()  # closed by a successful exec
        given, feed = os.pipe() if waits else (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), None)
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            self._become(argv, env, cwd, (given, log, log), parent, write_end)
        os.close(write_end)
        os.close(given)
        self._feed = feed
        with open(read_end, "rb") as pipe:
            failure = pipe.read()
        if failure:
            os.waitpid(child, 0)
            number, _, name = failure.decode(errors="replace").partition(" ")
            raise OSError(int(number), os.strerror(int(number)), name)
        self.child = child
        if self.asked:
            self._forward()

    def give(self, folder: str, argv: list[str], env: Mapping[str, str], cwd: str) -> bool:
        """Let the program that waits become that of an attempt. False: none waits, so one is to be started."""
        feed, self._feed = self._feed, None
        if feed is None:
            return False
        ended, _ = os.waitpid(self.child, os.WNOHANG)
        try:
            if not ended:
                with open(feed, "wb") as pipe:
                    told = {"folder": folder, "argv": argv, "env": dict(env), "cwd": cwd}
                    pipe.write(json.dumps(told).encode() + b"\n")
                return True
        except BrokenPipeError:
            self.end()
        self.child = 0
        return False

    def end(self) -> None:
        """End what was started and is not needed."""
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child, signal.SIGKILL)
            self._end_descendants()
            self.child = 0

    def _become(
        self,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str,
        streams: tuple[int, int, int],
        parent: int,
        failures: int,
    ) -> NoReturn:
        where = cwd
        try:
            os.setpgid(0, 0)
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the stub died before the line above
                os._exit(127)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            for target, stream in enumerate(streams):
                os.dup2(stream, target)
            os.chdir(cwd)
            where = argv[0]
            os.execvpe(argv[0], argv, dict(env))  # noqa: S606 - no shell is wanted
        except OSError as error:
            os.write(failures, f"{error.errno or errno.EIO} {where}".encode())
        finally:
            os._exit(127)

    def wait(self) -> int:
        """The wait status of the program, after it and everything it left behind are dead."""
        while True:
            ended, status = os.waitpid(-1, 0)  # descendants that lost their parent are ours to reap, too
            if ended == self.child:
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)
        self._end_descendants()
        self.child = 0
        return status

    def _end_descendants(self) -> None:
        """As a subreaper this process inherits whoever loses its parent, so ending children ends the whole tree."""
        while True:
            for child in _children(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return


def _children(parent: int) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    ppid = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if ppid == parent:
                found.append(int(name))
    return found


def oom_kills() -> int:
    """Processes that this system has ended for lack of memory since it runs; 0 where it does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", encoding="ascii") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def ending(status: int, asked: bool, killed: int = 0) -> dict[str, Any]:
    """An Exit of a wait status.

    Args:
        asked: it had been asked to stop.
        killed: processes that the system ended for lack of memory while it ran.
    """
    if not os.WIFSIGNALED(status):
        return {"code": os.WEXITSTATUS(status), "signal": None, "at": time.time(), "started": True, "message": ""}
    number = os.WTERMSIG(status)
    message = f"Ended by {signal.Signals(number).name}."
    if number == signal.SIGKILL and killed and not asked:
        message += f" Meanwhile the system ended {killed} of its processes for lack of memory."
    elif number == signal.SIGKILL and not asked:
        message += " Nobody here sent it: the system may have run out of memory."
    return {"code": None, "signal": number, "at": time.time(), "started": True, "message": message}


def _say(answer: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # the kernel died meanwhile; the run goes on without it
        os.write(1, answer.encode() + b"\n")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)


def keep(folder: str) -> int:
    """Run the program of a spare folder until it is told on standard input which attempt it shall run, and that."""
    _lead_session()
    lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # the folder is in use
    with open(os.path.join(folder, "spec.json"), "rb") as file:
        spec = json.load(file)
    log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    program = Run()
    program.start(list(spec["argv"]), environment(os.environ, spec, folder), folder, log, waits=True)
    try:
        program.for_nobody = True
        line = sys.stdin.buffer.readline()
        program.for_nobody = False
        if not line.endswith(b"\n"):  # whoever held it is gone, or has no use for it
            return 0
        attempt = os.fsdecode(line[:-1])
        os.symlink(attempt, os.path.join(folder, ATTEMPT))
        return run(attempt, program)
    finally:
        program.end()


def _lead_session() -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()


def run(folder: str, program: Run | None = None) -> int:
    """Run the attempt of `folder`; the stub's own exit status says only whether `exit.json` was written.

    Args:
        program: one that waits for what it shall become.
    """
    _lead_session()
    lock = take_lock(folder)
    if lock is None:
        _say("already")
        return 0
    exit_path = os.path.join(folder, "exit.json")
    try:
        with open(os.path.join(folder, "spec.json"), "rb") as file:
            spec = json.load(file)
        reserve(exit_path)
        log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        program = program or Run()
        write_whole(os.path.join(folder, "process.json"), identity(spec["attempt"]))
    except OSError as error:  # nothing was started and process.json is not there: a later start may try again
        _say(f"failed: {error}")
        return 1
    try:
        env, killed = environment(os.environ, spec, folder), oom_kills()
        argv = list(spec["argv"])
        if not program.give(folder, argv, env, spec["cwd"]):
            program.start(argv, env, spec["cwd"], log)
    except OSError as error:
        record = {"code": None, "signal": None, "at": time.time(), "started": False, "message": str(error)}
        write_whole(exit_path, record)
        _say(f"failed: {error}")
        return 1
    _say("running")
    status = program.wait()
    write_whole(exit_path, ending(status, program.asked, oom_kills() - killed))
    return 0


if __name__ == "__main__":
    what = keep if sys.argv[1] == "--spare" else run
    sys.exit(what(os.path.abspath(sys.argv[-1])))
