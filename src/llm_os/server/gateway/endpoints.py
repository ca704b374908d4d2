"""Which endpoint a request is for: a table; must not know what endpoints do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http import HttpVersion11

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Endpoints:
    """Handlers by method and path.

    A path may end with a `{name}`, which stands for one part of a path, see `named_in`.

    Args:
        table: method -> path -> handler.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self.table = table
        self._paths = frozenset(path for paths in table.values() for path in paths)
        self._named = {path.partition("{")[0]: path for path in self._paths if "{" in path}

    def route_of(self, request: web.BaseRequest) -> str:
        """The path in the table; empty where there is none."""
        path = request.rel_url.raw_path
        path = request.rel_url.path_safe if "%" in path else path
        if path in self._paths:
            return path
        before, _, last = path.rpartition("/")
        return self._named.get(f"{before}/", "") if last else ""

    def handler(self, request: web.BaseRequest, route: str) -> Handler:
        """The handler of a route. Raises HTTPNotFound, HTTPMethodNotAllowed."""
        if (found := self.table.get(request.method, {}).get(route)) is not None:
            return found
        if route:
            raise web.HTTPMethodNotAllowed(request.method, [one for one, paths in self.table.items() if route in paths])
        raise web.HTTPNotFound


def named_in(request: web.BaseRequest) -> str:
    """What stands in the path for the `{name}` of its route, which is its last part."""
    return unquote(request.rel_url.raw_path.rpartition("/")[2])


async def go_on(request: web.BaseRequest) -> None:
    """Tell a caller who waits for it to send the body. Raises HTTPExpectationFailed: it waits for something else."""
    if request.version != HttpVersion11:
        return
    if request.headers["expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Only '100-continue' can be expected.")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    await request.writer.drain()
