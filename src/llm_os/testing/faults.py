"""Faults for simulations: a kernel that dies at any moment, commits that fail, ports that refuse. Knows no scenario.

A kernel lives in an `Incarnation`. Everything it does passes *points*: each step of each of its tasks, and each call of
a port, before and after. At the point that was chosen it is dead, as after `kill -9`: none of its code runs on (what
its `finally` blocks still try is refused), and nothing it had not committed stays.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from llm_os.errors import DiskFullError
from llm_os.store.database import Database

T = TypeVar("T")
_HERE: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("incarnation", default=None)


class Crash(BaseException):
    """The kernel of this incarnation is dead. No `Exception`: nothing in the kernel may catch it."""


class Luck:
    """Decides which calls fail. `calm()` ends all faults.

    Args:
        random: seeded.
        commits, disk: share of commits that fail, and of writes that find the disk full.
    """

    def __init__(self, random: Random, commits: float = 0.0, disk: float = 0.0) -> None:
        self.random = random
        self.commits = commits
        self.disk = disk
        self.seen: list[str] = []
        """Faults that struck, by name."""

    def strikes(self, share: float, name: str) -> bool:
        if share > 0 and self.random.random() < share:
            self.seen.append(name)
            return True
        return False

    def calm(self) -> None:
        self.commits = self.disk = 0.0


class Incarnation:
    """One life of a kernel.

    Args:
        number: which life, from 1.
        crash_at: the point at which it dies; None: it does not.
        broken: called with a sentence when the kernel breaks a rule that is seen here.
    """

    def __init__(self, number: int, crash_at: int | None, broken: Callable[[str], None]) -> None:
        self.number = number
        self.crash_at = crash_at
        self.points = 0
        self.alive = True
        self.died = asyncio.Event()
        self.died_at = ""
        self.in_transaction = False
        self.broken = broken
        self.context = contextvars.copy_context()
        self.context.run(_HERE.set, self)
        self._tasks: list[tuple[asyncio.Task[Any] | None, _Stepped]] = []

    def point(self, name: str) -> None:
        """Pass a point. Raises Crash when this is where it dies, and ever after."""
        if self.alive:
            self.points += 1
            if self.points != self.crash_at:
                return
            self.alive = False
            self.died_at = name
            self.died.set()
        raise Crash(self.died_at)

    def call(self, verb: Callable[..., T], *arguments: Any) -> T:
        """A call from outside, such as a syscall. Tasks that it starts belong to the kernel. Raises Crash."""
        if not self.alive:
            raise Crash(self.died_at)
        return self.context.copy().run(verb, *arguments)

    def bury(self) -> None:
        """Close what it left: its code runs no further, its tasks are done."""
        self.alive = False
        self.died.set()
        for task, steps in self._tasks:
            steps.bury()
            if task is not None:
                task.cancel()
        self._tasks.clear()

    def own(self, task: asyncio.Task[Any], steps: _Stepped) -> None:
        self._tasks.append((task, steps))
        task.add_done_callback(lambda _: self._disown(steps))

    def _disown(self, steps: _Stepped) -> None:
        self._tasks = [pair for pair in self._tasks if pair[1] is not steps]


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine of the kernel, each step of which is a point."""

    def __init__(self, inner: Coroutine[Any, Any, Any], life: Incarnation) -> None:
        self._inner = inner
        self._life = life

    def send(self, value: Any) -> Any:
        self._pass()
        try:
            return self._inner.send(value)
        finally:
            self._looked()

    def throw(self, *problem: Any) -> Any:
        self._pass()
        try:
            return self._inner.throw(*problem)
        finally:
            self._looked()

    def _pass(self) -> None:
        try:
            self._life.point("step")
        except Crash:
            self.bury()
            raise

    def _looked(self) -> None:
        if self._life.in_transaction and self._life.alive:
            self._life.broken("A transaction is open while something is awaited.")

    def close(self) -> None:
        self._inner.close()

    def bury(self) -> None:
        """Let its `finally` blocks run into closed doors, so that nothing of it runs later, when it is collected."""
        _close(self._inner)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close it and what it holds; those that never began would complain when they are collected."""
    frame = getattr(coroutine, "cr_frame", None)
    held = [value for value in frame.f_locals.values() if inspect.iscoroutine(value)] if frame else []
    try:
        coroutine.close()
    except (Crash, RuntimeError, ValueError):  # it was told; it awaits, or it is what runs at this moment
        return
    for other in held:
        _close(other)


def task_factory(
    loop: asyncio.AbstractEventLoop, coro: Any, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    """For `loop.set_task_factory`: tasks that a kernel starts are stepped."""
    life = _HERE.get() if context is None else context.get(_HERE)
    if life is None:
        return asyncio.Task(coro, loop=loop, context=context)
    steps = _Stepped(coro, life)
    task = asyncio.Task(steps, loop=loop, context=context)
    life.own(task, steps)
    return task


class SharedDatabase(Database):
    """A migrated database behind an engine that others use, too."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.version = 0


@cache
def _template() -> tuple[Engine, bytes]:
    """An engine in memory, and the bytes of a database that was just migrated."""
    database = Database("sqlite://")
    raw = database.engine.raw_connection()
    try:
        return database.engine, bytes(raw.driver_connection.serialize())  # type: ignore[union-attr]
    finally:
        raw.close()


def fresh_database() -> Database:
    """The one database in memory, as it was after its migration: its compiled statements are kept from run to run."""
    engine, template = _template()
    raw = engine.raw_connection()
    raw.rollback()
    raw.driver_connection.deserialize(template)  # type: ignore[union-attr]
    raw.close()
    return SharedDatabase(engine)


class FailingDatabase(SharedDatabase):
    """The database as one incarnation sees it; the rows outlive it.

    Args:
        shared: the database that stays.
        committed: called after each commit with the open engine's connection closed.
    """

    def __init__(self, shared: Database, life: Incarnation, luck: Luck, committed: Callable[[], None]) -> None:
        super().__init__(shared.engine)
        self._life = life
        self._luck = luck
        self._committed = committed

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        life = self._life
        life.point("begin")
        if life.in_transaction:
            life.broken("A transaction was begun inside another.")
        life.in_transaction = True
        try:
            with super().transaction() as connection:
                yield connection
                life.point("commit")
                if self._luck.strikes(self._luck.commits, "commit"):
                    raise OperationalError("COMMIT", {}, Exception("disk I/O error"))
        finally:
            life.in_transaction = False
        self._committed()
        life.point("committed")

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        if not self._life.alive:
            raise Crash(self._life.died_at)
        with super().reading() as connection:
            yield connection


class Port:
    """A port as one incarnation sees it: a point before and after each call; writes may find the disk full.

    Args:
        inner: the port that stays.
        quiet: methods that touch nothing, and pass no points.
        writes: methods that may raise DiskFullError.
    """

    def __init__(
        self, name: str, inner: Any, life: Incarnation, luck: Luck, quiet: frozenset[str], writes: frozenset[str]
    ) -> None:
        self._name, self._inner, self._life, self._luck = name, inner, life, luck
        self._quiet, self._writes = quiet, writes

    def __getattr__(self, method: str) -> Any:
        value = getattr(self._inner, method)
        if not callable(value) or method in self._quiet:
            return value
        guarded = self._coroutine(method, value) if inspect.iscoroutinefunction(value) else self._plain(method, value)
        setattr(self, method, guarded)
        return guarded

    def _plain(self, method: str, value: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._before(method)
            answer = value(*args, **kwargs)
            self._life.point(f"after {self._name}.{method}")
            return answer

        return call

    def _coroutine(self, method: str, value: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._before(method)
            answer = await value(*args, **kwargs)
            self._life.point(f"after {self._name}.{method}")
            return answer

        return call

    def _before(self, method: str) -> None:
        self._life.point(f"before {self._name}.{method}")
        if method in self._writes and self._luck.strikes(self._luck.disk, "disk"):
            raise DiskFullError(f"No space left on device ({self._name}.{method}).")
