"""The gateway's process: `python -m llm_os.server.gateway.main ATTEMPT_FOLDER`; starts and runs without the kernel."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import logging.handlers
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from llm_os.errors import LLMOSError
from llm_os.server.gateway.access import AccessLog
from llm_os.server.gateway.accounting import Accounting
from llm_os.server.gateway.admission import Admission
from llm_os.server.gateway.app import Gateway, Parts
from llm_os.server.gateway.attempt import report
from llm_os.server.gateway.estimates import Estimates
from llm_os.server.gateway.lanes import Lanes
from llm_os.server.gateway.metering import Metering
from llm_os.server.gateway.metrics import Metrics
from llm_os.server.gateway.proxy import Proxy
from llm_os.server.gateway.quotas import Quotas
from llm_os.server.gateway.response_cache import ResponseCache, state_of
from llm_os.server.gateway.routes import Routes, answering, views
from llm_os.server.gateway.tracing import connected
from llm_os.server.gateway.upstream import Upstreams
from llm_os.server.listening import LOOPBACK, on_tcp
from llm_os.settings import Settings
from llm_os.spec.attempts import EXIT_FAILED, EXIT_OK, EXIT_USER_ERROR

log = logging.getLogger("llm_os.gateway")

DRAIN = 5.0
"""Seconds that requests get at the end."""
BODY_WITHIN = 30.0
"""Seconds in which the body of a request must have arrived."""
HEADERS_WITHIN = 60.0
"""Seconds in which a new or idle connection must have sent a request's head."""
_FORGET_EVERY = 30.0
GARBAGE = (10_000, 20, 20)
"""When garbage is looked for: a request leaves hundreds of objects, and hardly ever a circle of them."""
_LOG_BYTES = 10 * 2**20
_BROKEN = (HttpProcessingError, web.RequestPayloadError)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may take of the gateway.

    Attributes:
        per_replica: requests that each ready replica gets at once.
        max_body: bytes of a request's body.
        headers_within, body_within: seconds in which they must have come.
    """

    per_replica: int
    max_body: int
    headers_within: float
    body_within: float


async def run(settings: Settings, folder: Path, listening: socket.socket, limits: Limits) -> None:
    """Answer until SIGTERM or SIGINT, then let requests end for up to DRAIN seconds."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    table = Routes(settings.routes)
    table.refresh()
    upstreams = Upstreams(time.monotonic)
    metering = Metering(settings.usage, time.time, lambda: table.table)
    access, prompts = AccessLog(settings.logs / "gateway-access.log"), settings.log_prompts
    accounting = Accounting(metering, Metrics(), Estimates(), access, logs_prompts=prompts)
    admission, quotas = Admission(limits.per_replica, time.monotonic), Quotas(time.monotonic)
    lanes = Lanes()
    table.listeners += [admission.changed, lanes.forget, metering.changed]
    parts = Parts(
        routes=table,
        proxy=Proxy(upstreams, time.monotonic, table.news, metering, lanes),
        admission=admission,
        quotas=quotas,
        accounting=accounting,
        cache=ResponseCache(settings.gateway_cache),
        max_body=limits.max_body,
        body_within=limits.body_within,
        logfile=str(settings.logs / "gateway.log"),
        tracing=connected(settings.traces),
    )
    runner = web.ServerRunner(
        Gateway(parts).server(access_log=None, handler_cancellation=True, keepalive_timeout=limits.headers_within),
        # aiohttp waits this long twice: for requests to end by themselves, and once more before it cancels them.
        shutdown_timeout=DRAIN / 2,
    )
    await runner.setup()
    await web.SockSite(runner, listening).start()
    beside: list[asyncio.Task[Any]] = [asyncio.create_task(table.watch()), asyncio.create_task(accounting.run())]
    beside.append(asyncio.create_task(_forget(upstreams, parts)))
    port = listening.getsockname()[1]
    gc.freeze()  # what is here stays: nobody need look through it again
    gc.set_threshold(*GARBAGE)
    report(folder, "ready", {"url": f"http://{LOOPBACK}:{port}"}, at=time.time())
    log.info("the gateway answers on port %d", port)
    ended: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([ended, *beside], return_when=asyncio.FIRST_COMPLETED)
        for task in beside:
            if task.done():
                task.result()  # a part that ended by itself is a defect: end loudly, the kernel starts us again
    finally:
        log.info("the gateway ends; requests get %.0f s", DRAIN)
        await runner.cleanup()
        for task in (ended, *beside):
            task.cancel()
        await asyncio.gather(ended, *beside, return_exceptions=True)
        await parts.proxy.shadows.end()
        upstreams.close()
        accounting.flush()
        if parts.tracing is not None:
            parts.tracing.close()


async def _forget(upstreams: Upstreams, parts: Parts) -> None:
    """Drop what is kept of replicas, deployments and keys that are gone."""
    while True:
        await asyncio.sleep(_FORGET_EVERY)
        table = parts.routes.table
        upstreams.forget(table)
        served = {route.deployment for route in table.routes}
        parts.admission.forget(served)
        parts.accounting.estimates.forget(served)
        parts.accounting.metrics.forget({route.deployment: answering(route) for route in table.routes})
        tenants = {key.tenant for key in table.keys if key.quota.cache}
        parts.cache.forget({state_of(view) for route in table.routes for view in views(route)}, tenants)
        parts.quotas.forget({key.id for key in table.keys})


def _without_traceback(record: logging.LogRecord) -> bool:
    """A caller who breaks HTTP is one line of the log: tracebacks there are defects of ours."""
    if record.exc_info and isinstance(broken := record.exc_info[1], _BROKEN):
        record.msg, record.args, record.exc_info = "no HTTP: %s", (" ".join(str(broken).split())[:300],), None
    return True


def _log_to(path: Path, level: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=3, encoding="utf-8")
    target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    target.addFilter(_without_traceback)
    root = logging.getLogger()
    root.setLevel(level)
    root.addHandler(target)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway of this home. Returns the exit code of `spec/attempts.py`."""
    parser = argparse.ArgumentParser(prog="llm_os.server.gateway.main", description=__doc__)
    parser.add_argument("attempt", type=Path, help="attempt folder; 'ready' is reported there")
    parser.add_argument("--per-replica", type=int, default=64, help="requests that each ready replica gets at once")
    parser.add_argument("--max-body", type=int, default=8 * 2**20, help="bytes of a request's body")
    parser.add_argument("--headers-within", type=float, default=HEADERS_WITHIN, help="seconds for a request's head")
    parser.add_argument("--body-within", type=float, default=BODY_WITHIN, help="seconds for a request's body")
    options = parser.parse_args(argv)
    settings = Settings()
    _log_to(settings.logs / "gateway.log", settings.log_level)
    try:
        listening = on_tcp(settings.gateway_port, "LLM_OS_GATEWAY_PORT")
    except LLMOSError as error:
        log.error("%s", error)
        report(options.attempt, "error", error.to_dict(), at=time.time())
        return EXIT_USER_ERROR
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(asyncio.CancelledError):
            given = Limits(options.per_replica, options.max_body, options.headers_within, options.body_within)
            runner.run(run(settings, options.attempt, listening, given))
    except Exception:
        log.exception("the gateway failed")
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
