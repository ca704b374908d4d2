"""Names of versions that move: `support-bot@production` means another version tomorrow."""

from __future__ import annotations

from sqlalchemy import Connection

from llm_os.errors import ConflictError, InvalidInputError, NotFoundError, did_you_mean
from llm_os.kernel.state import State
from llm_os.kernel.submission import find_model
from llm_os.spec.api import Alias, MoveAlias
from llm_os.spec.deployments import Deployment
from llm_os.spec.events import EventKind
from llm_os.store import rows


class Aliases:
    def __init__(self, state: State) -> None:
        self._state = state

    def list(self, card: str | None) -> list[Alias]:
        """All of them, or a card's, by card and name."""
        with self._state.database.reading() as tx:
            found = rows.list_aliases(tx)
            return [_alias(tx, *one) for one in found if card is None or one[0] == card]

    def move(self, card: str, name: str, request: MoveAlias) -> Alias:
        """Make it mean this version. Deployments that follow it see it in the next turn.

        Raises:
            NotFoundError: no such version.
            InvalidInputError: the version is of another card, or the name is a number.
        """
        if name.isdigit() or not name:
            raise InvalidInputError(
                f"An alias cannot be called '{name}': numbers name versions.", hint=f"Such as {card}@production."
            )
        with self._state.database.transaction() as tx:
            version = find_model(tx, request.version)
            if version.card != card:
                raise InvalidInputError(
                    f"{card}@{name} cannot mean {version.ref}, which is a version of another model.",
                    hint=f"Name a version of {card}.",
                )
            before = rows.get_alias(tx, card, name)
            if before != version.number:
                rows.set_alias(tx, card, name, version.number)
                was = f", before {card}@{before}" if before is not None else ""
                message = f"{card}@{name} means {version.ref}{was}."
                rows.add_event(tx, self._state.clock.now(), EventKind.ALIAS_MOVED, f"{card}@{name}", message)
            answer = _alias(tx, card, name, version.number)
        self._state.pulse.beat()
        return answer

    def drop(self, card: str, name: str) -> Alias:
        """Forget it.

        Raises:
            NotFoundError: there is none.
            ConflictError: a deployment follows it.
        """
        with self._state.database.transaction() as tx:
            number = rows.get_alias(tx, card, name)
            if number is None:
                known = [f"{c}@{n}" for c, n, _ in rows.list_aliases(tx)]
                raise NotFoundError(f"There is no alias '{card}@{name}'.", hint=did_you_mean(f"{card}@{name}", known))
            found = _alias(tx, card, name, number)
            if found.followers:
                raise ConflictError(
                    f"{found.ref} is followed by {', '.join(found.followers)}.",
                    hint=f"Pin it first: llm-os update {found.followers[0]} {found.version}",
                )
            rows.drop_alias(tx, card, name)
        return found


def _asked(deployment: Deployment) -> set[str]:
    """What it is said to serve now, and when its update is done."""
    going = {deployment.rollout.asked} if deployment.rollout is not None and deployment.updating else set()
    return {deployment.spec.model} | going


def _alias(tx: Connection, card: str, name: str, number: int) -> Alias:
    ref = f"{card}@{name}"
    live = rows.all_deployments(tx, include_ended=False)
    followers = tuple(row.deployment.spec.name for row in live if ref in _asked(row.deployment))
    return Alias(card=card, name=name, version=f"{card}@{number}", followers=followers)
