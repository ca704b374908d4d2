"""Whether a new version does as well as the old one, from what the gateway counted. Pure."""

from __future__ import annotations

from llm_os.spec.deployments import UpdatePolicy
from llm_os.spec.routing import RevisionUsage

LEAST_FAILED = 3
"""Failures below which nothing is concluded: one is chance."""
LEAST_BEGUN = 20
"""Answers of each version below which their times are not compared."""
UNFELT = 0.05
"""Seconds by which a mean time may be longer, however short it was."""


def complaint(new: RevisionUsage, old: RevisionUsage, policy: UpdatePolicy) -> str | None:
    """What is wrong with the new version, a clause for people; None: nothing that is sure."""
    share, before = _share(new), _share(old)
    if new.failed >= LEAST_FAILED and share > max(policy.most_failures, 2 * before):
        return f"{new.failed} of {new.requests} requests failed, of the old version's {before:.1%}"
    if min(new.first_bytes, old.first_bytes) >= LEAST_BEGUN:
        mean, usual = new.first_byte_seconds / new.first_bytes, old.first_byte_seconds / old.first_bytes
        if mean > policy.most_slower * usual and mean > usual + UNFELT:
            return f"its first byte came after {mean:.2f} s in the mean, the old version's after {usual:.2f} s"
    return None


def _share(usage: RevisionUsage) -> float:
    return usage.failed / usage.requests if usage.requests else 0.0
