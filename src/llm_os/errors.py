"""Every error a user can meet, in one tree; nothing below knows who raises them.

```
LLMOSError
├── InvalidInputError            what was asked cannot be right
│   ├── InvalidOptionError       an unknown or ill-typed option ("did you mean")
│   ├── TooLargeError            a request body over the limit
│   ├── DataError                the data cannot be used
│   │   ├── ColumnNotFoundError  a named column is not there
│   │   ├── EmptyDataError       no usable row
│   │   ├── SingleClassError     fewer than two classes
│   │   ├── LeakError            texts of the test that are in the training rows too
│   │   └── EncodingError        bytes that are not the text they claim to be
│   └── ModelError               the model cannot be used
│       ├── UnsafeWeightsError   pickle weights: refused, never opened
│       ├── BrokenWeightsError   truncated, damaged or incomplete weights
│       ├── UnsupportedModelError    a format, task or engine that does not fit
│       └── ParityError          an engine that does not say what the model says in PyTorch
├── NotFoundError                no such name, job, deployment, version or file
├── ConflictError                a name is taken, or a state forbids the step
├── CapacityError                it does not fit; says what is needed and what is free
├── DiskFullError                no room to write; nothing half-written stays
├── PortInUseError               another program listens there
├── IntegrityError               bytes that do not match their digest
├── SourceError                  a package, hub or file source could not be fetched
├── UpstreamError                the server behind an engine refused what we asked of it
├── KernelUnavailableError       no kernel answers (retryable)
├── UnavailableError             a replica or engine is not ready or missing (retryable)
├── OverloadedError              a bounded queue is full (retryable; `retry_after` seconds in the details)
│   └── QuotaExceededError       the key has used what it may for now
├── RolloutError                 a new version was taken back; the old one goes on serving
├── DeadlineError                no answer within the time that the caller gave
├── AuthenticationError          no key, or a wrong one
├── PermissionDeniedError        the key's role does not allow it
├── StaleError                   a late or doubled write was dropped (retryable)
├── JobError
│   ├── JobFailedError           a job ended in failure
│   ├── JobCancelledError        a job was cancelled
│   └── NothingLearntError       training ended, but the model learnt nothing
└── InternalError                a defect of ours
```
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class LLMOSError(Exception):
    """Root of all errors.

    Attributes:
        code: stable machine name, in snake case.
        hint: what to do next, one sentence.
        retryable: whether the same call may succeed later, unchanged.
        details: numbers and names behind the message, JSON-able.
        status: the HTTP status the error travels with.
        exit_code: what the command line returns.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The one shape errors have on the wire, in reports and with `--json`."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "details": self.details,
        }


class InvalidInputError(LLMOSError, ValueError):
    code = "invalid_input"
    status = 400
    exit_code = 2


class InvalidOptionError(InvalidInputError):
    code = "invalid_option"


class TooLargeError(InvalidInputError):
    code = "too_large"
    status = 413


class DataError(InvalidInputError):
    code = "data_error"
    status = 422


class ColumnNotFoundError(DataError):
    code = "column_not_found"


class EmptyDataError(DataError):
    code = "empty_data"


class SingleClassError(DataError):
    code = "single_class"


class LeakError(DataError):
    code = "leak"


class EncodingError(DataError):
    code = "encoding_error"


class ModelError(InvalidInputError):
    code = "model_error"
    status = 422


class UnsafeWeightsError(ModelError):
    code = "unsafe_weights"


class BrokenWeightsError(ModelError):
    code = "broken_weights"


class UnsupportedModelError(ModelError):
    code = "unsupported_model"


class ParityError(ModelError):
    code = "parity"
    status = 409


class NotFoundError(LLMOSError, LookupError):
    code = "not_found"
    status = 404
    exit_code = 3


class ConflictError(LLMOSError):
    code = "conflict"
    status = 409
    exit_code = 4


class CapacityError(LLMOSError):
    code = "capacity"
    status = 409
    exit_code = 5


class CapacityWarning(UserWarning):
    """Something asked for is not there, and the work goes on without it."""


class DiskFullError(LLMOSError):
    code = "disk_full"
    status = 507
    exit_code = 5
    default_hint = "Free some space and run the same command again; nothing half-written was kept."


class PortInUseError(LLMOSError):
    code = "port_in_use"
    status = 409
    exit_code = 4


class IntegrityError(LLMOSError):
    code = "integrity"
    status = 500


class SourceError(LLMOSError):
    code = "source"
    status = 502


class UpstreamError(LLMOSError):
    code = "upstream"
    status = 502


class KernelUnavailableError(LLMOSError):
    code = "kernel_unavailable"
    retryable = True
    status = 503
    exit_code = 6


class UnavailableError(LLMOSError):
    code = "unavailable"
    retryable = True
    status = 503
    exit_code = 6


class OverloadedError(LLMOSError):
    code = "overloaded"
    retryable = True
    status = 429
    exit_code = 6


class QuotaExceededError(OverloadedError):
    code = "quota_exceeded"


class RolloutError(LLMOSError):
    code = "rollout"
    status = 409


class DeadlineError(LLMOSError):
    code = "deadline_exceeded"
    status = 504
    exit_code = 6


class AuthenticationError(LLMOSError):
    code = "authentication"
    status = 401
    exit_code = 7


class PermissionDeniedError(LLMOSError):
    code = "permission_denied"
    status = 403
    exit_code = 7


class StaleError(LLMOSError):
    code = "stale"
    retryable = True
    status = 409


class JobError(LLMOSError):
    code = "job_error"
    status = 409


class JobFailedError(JobError):
    code = "job_failed"


class JobCancelledError(JobError):
    code = "job_cancelled"
    exit_code = 130


class NothingLearntError(JobError):
    code = "nothing_learnt"


class InternalError(LLMOSError):
    code = "internal"
    default_hint = "This is a defect of LLM OS; please report it with the log named above."


def _tree(root: type[LLMOSError]) -> Iterable[type[LLMOSError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def by_code() -> dict[str, type[LLMOSError]]:
    """All error classes by their code."""
    return {cls.code: cls for cls in _tree(LLMOSError)}


def from_dict(data: Mapping[str, Any]) -> LLMOSError:
    """The exception that `to_dict` described; an unknown code becomes the root class."""
    cls = by_code().get(str(data.get("code")), LLMOSError)
    return cls(
        str(data.get("message", "unknown error")),
        hint=str(data.get("hint", "")),
        details=data.get("details") or {},
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'epochs'? Known: ...`, for names looked up and not found."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    guess = f"Did you mean '{close[0]}'? " if close else ""
    return f"{guess}Known: {listed}." if names else f"{guess}There are none yet."
