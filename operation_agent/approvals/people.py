"""Who stands behind a voter: a key votes for whoever made it, so that nobody approves their own by a key of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

_MADE_BY = """
SELECT DISTINCT detail ->> 'name' AS name, actor FROM audit_log
WHERE shop_id = :shop AND verb = 'key.created' AND (actor LIKE 'user:%' OR actor LIKE 'key:%')
"""


def behind(session: Session, shop_id: UUID, actors: Iterable[str]) -> dict[str, frozenset[str]]:
    """Each actor with everybody behind it: itself and, for a key, whoever made a key of that name, and so on.

    Keys made on the command line have nobody behind them.
    """
    asked = set(actors)
    makers: dict[str, set[str]] = {}
    if any(actor.startswith("key:") for actor in asked):
        for row in session.execute(text(_MADE_BY), {"shop": shop_id}):
            makers.setdefault(f"key:{row.name}", set()).add(row.actor)
    return {actor: _closure(actor, makers) for actor in asked}


def _closure(actor: str, makers: dict[str, set[str]]) -> frozenset[str]:
    found, left = {actor}, [actor]
    while left:
        new = makers.get(left.pop(), set()) - found
        found |= new
        left += new
    return frozenset(found)
