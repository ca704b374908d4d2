"""What was served to whom, exact across every kill: sums in a file, and one line for each request since.

A line goes to the system with one call when its request ends, so that it outlives this process. Twice a second the
sums are written with the number of a new, empty spool, and only then is the old one deleted: whichever of both steps a
kill falls between, no request is counted twice or not at all. (A power cut may lose the last seconds.)
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from llm_os.spec.routing import GatewayUsage, Served

log = logging.getLogger("llm_os.gateway")

Account = tuple[str, str, str, str]
"""Tenant, key, deployment, version. A key or deployment that is there no more is an empty text."""


class Spool:
    """Sums by account.

    Args:
        path: of `usage.json`; spools lie beside it.
        earlier: what that file says, if it is there.
    """

    def __init__(self, path: Path, earlier: GatewayUsage | None) -> None:
        self._path = path
        self._sums: dict[Account, list[int]] = {}
        self._begins: dict[Account, str] = {}
        """How lines of an account begin."""
        self._file: int | None = None
        self._failed = False
        there = self._numbers()
        self._number = max(there, default=0) if earlier is None else earlier.spool
        for one in earlier.served if earlier is not None else ():
            account = (one.tenant, one.key, one.deployment, one.version)
            self._add(account, one.requests, one.prompt_tokens, one.completion_tokens)
        for number in there:
            if number < self._number:
                self._at(number).unlink(missing_ok=True)
        for account, prompt, completion in lines_of(self._at(self._number)):
            self._add(account, 1, prompt, completion)

    def add(self, account: Account, prompt: int, completion: int) -> None:
        """Count a request that has ended. A full disk must not stop requests: it is counted here, and logged once."""
        self._add(account, 1, prompt, completion)
        if (begin := self._begins.get(account)) is None:
            begin = self._begins[account] = json.dumps(account)[:-1]
        line = f"{begin}, {prompt}, {completion}]\n".encode()
        try:
            if self._file is None:
                self._file = os.open(self._at(self._number), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            if os.write(self._file, line) != len(line):
                os.write(self._file, b"\n")  # half a line: its end keeps the next one whole
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.error("what was served cannot be written down; a restart would forget it: %s", error)
            self._failed = True

    @property
    def number(self) -> int:
        """Of the spool whose lines the sums in the file do not have."""
        return self._number

    def sums(self) -> tuple[Served, ...]:
        """All that was served by now."""
        return tuple(
            Served(
                tenant=tenant,
                key=key,
                deployment=deployment,
                version=version,
                requests=requests,
                prompt_tokens=prompt,
                completion_tokens=completion,
            )
            for (tenant, key, deployment, version), (requests, prompt, completion) in self._sums.items()
        )

    def retire(self, keys: set[str], deployments: set[str]) -> None:
        """Put together what belongs to keys and deployments that are there no more, so that the sums stay few."""
        self._begins.clear()
        for account in list(self._sums):
            tenant, key, deployment, version = account
            kept = (tenant, key if key in keys else "", deployment if deployment in deployments else "", version)
            if kept != account:
                self._add(kept, *self._sums.pop(account))

    def folded(self) -> None:
        """The file has the sums of everything by now, and the number of the next spool: drop this one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._at(self._number).unlink(missing_ok=True)
        self._number += 1
        self._failed = False

    def _add(self, account: Account, *counts: int) -> None:
        sums = self._sums.setdefault(account, [0, 0, 0])
        for place, count in enumerate(counts):
            sums[place] += count

    def _at(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{number}.jsonl")

    def _numbers(self) -> list[int]:
        """Of the spools that are there."""
        names = (old.name.split(".")[-2] for old in self._path.parent.glob(f"{self._path.stem}.*.jsonl"))
        return [int(name) for name in names if name.isdigit()]


def lines_of(path: Path) -> list[tuple[Account, int, int]]:
    """The whole lines of a spool: account, tokens of prompt, tokens of answer. A torn line is left out."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            *account, prompt, completion = json.loads(line)
            tenant, key, deployment, version = (str(name) for name in account)
            found.append(((tenant, key, deployment, version), int(prompt), int(completion)))
        except (ValueError, TypeError):
            log.warning("a line of %s is damaged, and left out", path.name)
    return found


def cached_of(usage: Mapping[str, object]) -> int | None:
    """Tokens of the prompt that the engine had in its cache; None where it does not tell."""
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return cached if isinstance(cached, int) and not isinstance(cached, bool) and cached >= 0 else None


def tokens_of(usage: Mapping[str, object]) -> tuple[int, int]:
    """Tokens of prompt and answer that an engine reported; 0 where it did not."""
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (
        prompt if isinstance(prompt, int) and prompt > 0 else 0,
        completion if isinstance(completion, int) and completion > 0 else 0,
    )
