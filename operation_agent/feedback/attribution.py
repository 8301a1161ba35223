"""Which action an order or a provider's report belongs to. Pure.

Attribution answers "what came after what"; it never says "because of". What an action changed is `effects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

WINDOW = timedelta(days=7)
"""How long after a touch an order still counts as following it, unless the shop's settings say otherwise."""

MESSAGE_KINDS = {
    "email.delivered": "delivered",
    "email.opened": "opened",
    "email.clicked": "clicked",
    "email.bounced": "bounced",
    "email.dropped": "dropped",
    "email.complained": "complained",
    "email.unsubscribed": "unsubscribed",
}


@dataclass(frozen=True, slots=True)
class Touch:
    """An action that reached its customer, or would have (held out). `at` is shop time."""

    action_id: UUID
    strategy_id: UUID
    at: datetime
    dedupe_key: str = ""
    customer_id: UUID | None = None  # whom it was for; an order by its coupon may be somebody else's


@dataclass(frozen=True, slots=True)
class Credit:
    """What an order is credited to: the action, and whether by its coupon's code or by coming last."""

    touch: Touch
    by: str


def credit(
    ordered_at: datetime,
    codes: Iterable[str],
    coupons: Mapping[str, Touch],
    touches: Sequence[Touch],
    window: timedelta = WINDOW,
) -> Credit | None:
    """The one action an order is credited to.

    A redeemed coupon is evidence and beats time; among several, the one issued last. Otherwise the last touch at
    most `window` before the order. Ties fall to the greater dedupe key, so the answer does not depend on row order.
    """
    redeemed = [coupons[code.upper()] for code in codes if code.upper() in coupons]
    if redeemed:
        return Credit(max(redeemed, key=_latest), "code")
    near = [touch for touch in touches if ordered_at - window <= touch.at <= ordered_at]
    return Credit(max(near, key=_latest), "last_touch") if near else None


def message_kind(event_type: str, properties: Mapping[str, object]) -> str | None:
    """The outcome a provider's event means; None for other events, and for opens made by a machine."""
    if event_type == "email.opened" and (properties.get("machine_open") or properties.get("machine")):
        return None
    return MESSAGE_KINDS.get(event_type)


def _latest(touch: Touch) -> tuple[datetime, str]:
    return touch.at, touch.dedupe_key
