"""Query parameters that several routers share: long polls and paging; knows no syscall."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

MAX_WAIT = 60.0
"""Seconds that one long poll holds a connection at most; clients ask again."""

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for a change.")]
Since = Annotated[int, Query(ge=0)]
Offset = Annotated[int, Query(ge=0)]
