"""When people must say yes to a campaign as a whole: one question, however many customers it is for.

By the size of its audience. What a single action needs a yes for (its type, its discount, its cost) is asked once per
version of a rule, when the actions are planned (`actions.approving`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from operation_agent.actions.approving import Ruling, rulings
from operation_agent.approvals import approvals
from operation_agent.approvals.approval import fingerprint
from operation_agent.store import outbox
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule

from . import records
from .records import FIRST_LANE, TOPIC, Campaign
from .survey import Findings


def ask(
    session: Session, shop: Shop, campaign: Campaign, rules: Sequence[LiveRule], findings: Findings,
    cutoffs: Mapping[str, Any], *, at: datetime,
) -> bool:  # fmt: skip
    """Put the campaign to people if a ruling wants that; False when it may run. `at` is system time.

    A yes is for these rules in these versions over this audience as of this instant, and is asked for again after any
    change of them. Neither who started the campaign nor who wrote its rules may answer.
    """
    why = list(_exceeded(shop, rules, findings, cutoffs))
    if not why:
        return False
    asking = [ruling for ruling, _ in why]
    mark = fingerprint([[one.to_dict() for one in campaign.rules], campaign.audience, campaign.as_of.isoformat()])
    made, _ = approvals.ask(
        session, shop.id, kind="campaign", subject=str(campaign.id), fingerprint=mark,
        needed=max(one.approvers for one in asking), why=[told for _, told in why], by=campaign.created_by,
        authors=_authors(session, shop, rules), at=at, expires_at=at + min(one.expires_in for one in asking),
    )  # fmt: skip
    return made.state != "granted"


def _exceeded(
    shop: Shop, rules: Iterable[LiveRule], findings: Findings, cutoffs: Mapping[str, Any]
) -> Iterable[tuple[Ruling, dict[str, Any]]]:
    strategies = {one.strategy_id: one.strategy for one in rules}
    for strategy_id, strategy in sorted(strategies.items(), key=lambda pair: pair[1].key):
        found = findings.found.get(strategy_id)
        size = found.candidates if found is not None else 0
        size = min(size, cutoffs.get(str(strategy_id), {}).get("served", size))
        for ruling in rulings(shop, strategy.limits):
            if ruling.audience_above is not None and size > ruling.audience_above:
                limit = {"rule": "audience_above", "limit": ruling.audience_above, "found": size, "of": ruling.of}
                yield ruling, {**limit, "strategy": strategy.key}


def _authors(session: Session, shop: Shop, rules: Iterable[LiveRule]) -> list[str]:
    rows = session.execute(
        text(
            "SELECT DISTINCT w.who FROM strategy_versions v"
            " CROSS JOIN LATERAL unnest(v.authors || v.published_by || v.created_by) AS w (who)"
            " WHERE v.shop_id = :shop AND v.state = 'live' AND v.strategy_id = ANY(CAST(:strategies AS uuid[]))"
            " AND w.who IS NOT NULL ORDER BY 1"
        ),
        {"shop": shop.id, "strategies": sorted({one.strategy_id for one in rules})},
    )
    return list(rows.scalars())


_WAITING = text("SELECT id FROM campaigns WHERE shop_id = :shop AND state = 'waiting_approval' ORDER BY due_at, id")


def settle(session: Session, shop: Shop, *, at: datetime) -> int:
    """Let approved campaigns run and end those that people refused or nobody answered in time; how many that were."""
    settled = 0
    for campaign_id in session.execute(_WAITING, {"shop": shop.id}).scalars().all():
        asked = approvals.current(session, shop.id, "campaign", str(campaign_id))
        state = asked.state if asked is not None else "expired"
        if state == "pending":
            continue
        campaign = records.find(session, shop.id, campaign_id, lock=True)
        if campaign.state != "waiting_approval":
            continue
        if state == "granted":
            records.change(session, shop.id, campaign, at=at, state="running", started_at=campaign.started_at or at)
        else:
            reason = "rejected" if state == "rejected" else "nobody approved it in time"
            records.change(session, shop.id, campaign, at=at, state="cancelled", reason=reason)
        settled += 1
    if settled:
        outbox.ring(session, shop.id, [(TOPIC, FIRST_LANE)], at=at)
    return settled
