"""What of a condition can be told by some of its comparisons alone, whatever the others come out as. Pure.

`weakest(condition, is_known)` holds wherever `condition` might hold: comparisons that are not known are taken to come
out as it needs them. So a cheap look at features spares reading everything else of those who cannot be taken.
"""

from __future__ import annotations

from collections.abc import Callable

from rules.condition import Condition, Group, Leaf

IsKnown = Callable[[Leaf], bool]
Weaker = Condition | bool


def weakest(condition: Condition, is_known: IsKnown) -> Condition | None:
    """None: nothing that is known could stop anybody. Every group of the answer has a member."""
    found = _bound(condition, is_known, best=True)
    return None if isinstance(found, bool) else found


def _bound(condition: Condition, is_known: IsKnown, *, best: bool) -> Weaker:
    """A condition that holds wherever this may hold (`best`), or only where it surely does."""
    if isinstance(condition, Leaf):
        return condition if is_known(condition) else best
    if condition.kind == "none":
        return _negated([_bound(one, is_known, best=not best) for one in condition.children])
    members = [_bound(one, is_known, best=best) for one in condition.children]
    settles = condition.kind == "any"  # the outcome of one member that is the group's
    if settles in [one for one in members if isinstance(one, bool)]:
        return settles
    left = [one for one in members if not isinstance(one, bool)]
    return Group(condition.kind, tuple(left)) if left else not settles


def _negated(members: list[Weaker]) -> Weaker:
    if any(one is True for one in members):
        return False
    left = [one for one in members if not isinstance(one, bool)]
    return Group("none", tuple(left)) if left else True
