"""The management API as one FastAPI application over the syscalls; must not know listeners or keys."""

from __future__ import annotations

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_os._version import __version__
from llm_os.errors import InvalidInputError, LLMOSError, NotFoundError
from llm_os.kernel.syscalls import Syscalls
from llm_os.server import envelope
from llm_os.server.management import (
    alerts,
    aliases,
    artifacts,
    deployments,
    events,
    jobs,
    keys,
    models,
    sessions,
    system,
)
from llm_os.settings import Settings

log = logging.getLogger("llm_os.management")

_TEXT = {"type": "string"}
_ERROR = {
    "description": "An error, with the status of its class.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {
                            "code": _TEXT,
                            "message": _TEXT,
                            "hint": _TEXT,
                            "retryable": {"type": "boolean"},
                            "details": {"type": "object"},
                        },
                    }
                },
            }
        }
    },
}
"""What every route may answer; without it FastAPI would tell of a 422 that there is not."""


def build(syscalls: Syscalls, settings: Settings) -> FastAPI:
    """The application with the routes of `spec/api.py`. Its listeners wrap it in a `Door` (see `serve.py`)."""
    app = FastAPI(
        title="LLM OS management API", version=__version__, docs_url=None, redoc_url=None, responses={"default": _ERROR}
    )
    for part in (system, sessions, jobs, events, models, aliases, artifacts, deployments, keys, alerts):
        app.include_router(part.router(syscalls))

    @app.exception_handler(LLMOSError)
    async def known(_: Request, error: LLMOSError) -> JSONResponse:
        return _answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _answer(envelope.from_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, LLMOSError):  # raised while FastAPI read the body
            return _answer(error.__cause__)
        return _answer(_of_http(request, error), status=error.status_code)

    app.add_middleware(_Unexpected, logfile=str(settings.logs / "kernel.log"))
    return app


class _Unexpected:
    """Turns whatever nobody expected into an InternalError; the traceback goes to the log, never to the caller."""

    def __init__(self, app: ASGIApp, logfile: str) -> None:
        self._app = app
        self._logfile = logfile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except LLMOSError:
            raise  # the door answers its own refusals
        except Exception as error:
            if started:
                raise
            internal = envelope.from_unexpected(error, log, f"{scope['method']} {scope['path']}", self._logfile)
            await _answer(internal)(scope, receive, send)


def _of_http(request: Request, error: HTTPException) -> LLMOSError:
    what = f"{request.method} {request.url.path}"
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFoundError(f"There is no {what}.", hint="The paths are listed in /openapi.json.")
    return InvalidInputError(f"{what}: {error.detail}.", hint="The paths and methods are listed in /openapi.json.")


def _answer(error: LLMOSError, status: int | None = None) -> JSONResponse:
    return JSONResponse(
        envelope.management_body(error), status_code=status or error.status, headers=envelope.headers(error)
    )
