"""Fetches pages of metrics as Prometheus would: over HTTP, with a key; must not know what they mean."""

from __future__ import annotations

import asyncio

import aiohttp

from llm_os.errors import UnavailableError

WITHIN = 5.0
"""Seconds that a page may take."""
MOST = 16 * 2**20
"""Bytes of a page."""


class Scraper:
    """One HTTP client.

    Args:
        key: a key whose role may read metrics.
    """

    def __init__(self, key: str) -> None:
        self._headers = {"authorization": f"Bearer {key}"}
        self._session: aiohttp.ClientSession | None = None

    async def read(self, url: str) -> str:
        """The page. Raises UnavailableError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN))
        try:
            async with self._session.get(url, headers=self._headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise UnavailableError(f"{url} answered {answer.status}.")
                data = await answer.content.read(MOST)
                while len(data) < MOST and (more := await answer.content.read(MOST - len(data))):
                    data += more
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise UnavailableError(f"{url} does not answer: {error or type(error).__name__}.") from error
        return data.decode("utf-8", errors="replace")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
