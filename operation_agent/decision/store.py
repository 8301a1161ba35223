"""Reading the past that guardrails ask about: a handful of statements, however many customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.store import arrays
from operation_agent.store.shops import Shop
from operation_agent.strategies.live import LiveRule
from rules.limits import ShopLimits, parse_shop
from rules.step import ACTIONS

from .candidates import is_asked
from .demands import ADDRESSES
from .facts import Trigger
from .history import Belonging, Coupon, History, Kept, Message, Past, Person, Purse
from .rationing import day_of

_COUNTED_STATES = ["waiting_approval", "ready", "sending", "sent", "unknown", "parked"]
"""An action in one of these was sent, may have been, or still will be."""
_OPEN_STATES = ["waiting_approval", "ready", "sending"]

Matched = Mapping[UUID, Sequence[Trigger]]
"""By rule, the triggers it takes."""


def load(
    session: Session,
    shop: Shop,
    rules: Sequence[LiveRule],
    triggers: Sequence[Trigger],
    *,
    matched: Matched | None = None,
) -> History:
    """The past of the triggers' customers, as far as the guardrails of `rules` ask. `matched`: where it is known which
    rule takes whom; otherwise whoever it is asked of."""
    past = _Reading(session, shop, rules, triggers, matched)
    past.people()
    past.complaints()
    past.sides()
    past.entries()
    past.actions()
    past.groups()
    past.budgets()
    past.executions()
    return past.history


class _Reading:
    def __init__(
        self,
        session: Session,
        shop: Shop,
        rules: Sequence[LiveRule],
        triggers: Sequence[Trigger],
        matched: Matched | None,
    ):
        self.session, self.shop, self.rules, self.triggers = session, shop, rules, triggers
        self.matched = matched or {live.rule_id: [one for one in triggers if is_asked(live, one)] for live in rules}
        self.history = History(is_lasting=False)
        self.shop_limits: ShopLimits = parse_shop(shop.settings)
        self.ids = sorted({one.customer_id for one in triggers})
        self.since = min(one.at for one in triggers)
        self.until = max(one.at for one in triggers)
        self.values: dict[str, Any] = {"shop": shop.id, "customers": _packed(self.ids)}

    def run(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        return self.session.execute(text(statement), {**self.values, **values}).all()

    def past_of(self, customer_id: UUID) -> Past:
        return self.history.past_of(customer_id)

    # -- how somebody can be reached ----------------------------------------------------------------------------------

    def people(self) -> None:
        """Those who are alike come as one row, and share one Person."""
        messages = [placed.step for rule in self.rules for arm in rule.rule.arms for placed in arm.places.values()
                    if placed.step.is_message]  # fmt: skip
        topics = sorted({(step.channel, step.topic) for step in messages})
        channels = sorted({channel for channel, _ in topics if channel in ADDRESSES})
        statement, values = _people_statement(topics, channels)
        for row in self.run(statement, **values):
            person = Person.of(
                {channel: getattr(row, f"has_{i}") for i, channel in enumerate(channels)},
                suppressed=_said((channel, getattr(row, f"stopped_{i}")) for i, channel in enumerate(channels)),
                consents=_said((topic, getattr(row, f"said_{i}")) for i, topic in enumerate(topics)),
                zone=row.time_zone,
            )
            for number in row.members:
                self.history.people[self.ids[number - 1]] = person
            if row.complained_at is not None:
                for number in row.members:
                    self._complained(self.ids[number - 1], row.complained_at)

    def complaints(self) -> None:
        spans = [rule.strategy.limits.complaint_cooldown for rule in self.rules]
        longest = max([*spans, self.shop_limits.complaint_cooldown or timedelta(0)])
        rows = self.run(
            "SELECT customer_id, max(occurred_at) AS last FROM timeline WHERE shop_id = :shop"
            " AND type = 'email.complained' AND occurred_at > :since AND customer_id = ANY(:customers) GROUP BY 1",
            since=self.since - longest,
        )
        for row in rows:
            self._complained(row.customer_id, row.last)

    def _complained(self, customer_id: UUID, at: datetime) -> None:
        past = self.past_of(customer_id)
        past.complained_at = max(past.complained_at or 0.0, at.timestamp())

    # -- where they stand ---------------------------------------------------------------------------------------------

    def sides(self) -> None:
        pairs: dict[tuple[UUID, UUID], None] = {}
        for rule in self.rules:
            pairs |= dict.fromkeys((rule.strategy_id, one.customer_id) for one in self.matched.get(rule.rule_id, ()))
        rows = self.run(
            "SELECT a.strategy_id, a.customer_id, a.held_out, a.propensity"
            " FROM unnest(CAST(:strategies AS uuid[]), CAST(:whose AS uuid[])) AS r (strategy_id, customer_id)"
            " JOIN assignments a ON a.shop_id = :shop AND a.strategy_id = r.strategy_id"
            " AND a.customer_id = r.customer_id",
            strategies=_packed([pair[0] for pair in pairs]),
            whose=_packed([pair[1] for pair in pairs]),
        )
        for row in rows:
            self.past_of(row.customer_id).sides[row.strategy_id] = Kept(row.held_out, row.propensity)

    def entries(self) -> None:
        asked = [rule for rule in self.rules if rule.rule.when.frequency != "every_time" or rule.rule.when.cooldown]
        pairs = dict.fromkeys(
            (rule.rule_id, one.customer_id) for rule in asked for one in self.matched.get(rule.rule_id, ())
        )
        if not pairs:
            return
        rows = self.run(
            "SELECT e.rule_id, e.customer_id, e.key, e.entered_at"
            " FROM unnest(CAST(:entered AS uuid[]), CAST(:whose AS uuid[])) AS r (rule_id, customer_id)"
            " JOIN enrolments e ON e.shop_id = :shop AND e.rule_id = r.rule_id AND e.customer_id = r.customer_id",
            entered=_packed([pair[0] for pair in pairs]),
            whose=_packed([pair[1] for pair in pairs]),
        )
        for row in rows:
            self.past_of(row.customer_id).enter(row.rule_id, row.key, row.entered_at.timestamp())

    def actions(self) -> None:
        """Messages that caps count and coupons, of every strategy, the held-out ones too."""
        caps = [cap for rule in self.rules if rule.strategy.limits.capping.held_back for cap in rule.strategy.caps]
        windows = [cap.window for cap in (*caps, *self.shop_limits.caps)]
        gives = any(placed.step.action == "coupon" for rule in self.rules for arm in rule.rule.arms
                    for placed in arm.places.values())  # fmt: skip
        if not windows and not gives:
            return
        spans = [rule.strategy.limits.coupons.window for rule in self.rules]
        spans += [self.shop_limits.coupons.window] if self.shop_limits.coupons is not None else []
        rows = self.run(
            _ACTIONS,
            states=_COUNTED_STATES,
            channels=[form.channel for form in ACTIONS.values() if form.is_message] if windows else [],
            gives=gives,
            since=self.since - max(windows, default=timedelta(0)),
            given_since=self.since - max(spans),
            earliest=self.since,
        )
        for row in rows:
            past = self.past_of(row.customer_id)
            if row.type == "coupon":
                past.coupons.append(Coupon(row.moment, row.until, row.strategy_id, row.offer))
            else:
                past.messages.append(Message(row.moment, row.channel, row.strategy_id, tuple(row.tags)))

    def groups(self) -> None:
        names = sorted({rule.strategy.limits.exclusive for rule in self.rules if rule.strategy.limits.exclusive})
        if not names:
            return
        for row in self.run(_GROUPS, names=names, states=_OPEN_STATES, since=self.since):
            self.past_of(row.customer_id).belong(Belonging(row.name, row.key, row.until))

    # -- money and capacity -------------------------------------------------------------------------------------------

    def budgets(self) -> None:
        ids = sorted({rule.budget_id for rule in self.rules if rule.budget_id is not None})
        if not ids:
            return
        rows = self.run(
            "SELECT b.id, b.limit_minor - b.reserved_minor - b.spent_minor AS available, b.daily_minor,"
            " b.per_customer_minor, d.day, d.committed_minor FROM budgets b"
            " LEFT JOIN budget_days d ON d.shop_id = b.shop_id AND d.budget_id = b.id AND b.daily_minor IS NOT NULL"
            " AND d.day BETWEEN :first AND :last WHERE b.shop_id = :shop AND b.id = ANY(CAST(:budgets AS uuid[]))",
            budgets=ids,
            **self._days(),
        )
        for row in rows:
            purse = self.history.purses.setdefault(
                row.id, Purse(row.available, row.daily_minor, row.per_customer_minor)
            )
            if row.day is not None:
                purse.days[row.day] = row.committed_minor
        limited = [budget for budget, purse in self.history.purses.items() if purse.per_customer is not None]
        if limited:
            self._spent(limited)

    def _spent(self, budgets: Sequence[UUID]) -> None:
        """Somebody's money is also what was committed to those who were merged into them."""
        rows = self.run(
            "SELECT known.customer_id, b.budget_id, sum(b.committed_minor)::bigint AS committed FROM ("
            "  SELECT id AS customer_id, id FROM unnest(CAST(:customers AS uuid[])) AS id UNION ALL"
            "  SELECT merged_into, id FROM customers WHERE shop_id = :shop AND merged_into = ANY(:customers)) AS known"
            " JOIN budget_customers b ON b.shop_id = :shop AND b.customer_id = known.id"
            " AND b.budget_id = ANY(CAST(:budgets AS uuid[])) GROUP BY 1, 2",
            budgets=list(budgets),
        )
        for row in rows:
            self.past_of(row.customer_id).spent[row.budget_id] = row.committed

    def executions(self) -> None:
        limited = sorted({rule.strategy_id for rule in self.rules if rule.strategy.limits.executions_per_day})
        if not limited:
            return
        rows = self.run(
            "SELECT strategy_id, day, taken FROM execution_days WHERE shop_id = :shop"
            " AND strategy_id = ANY(CAST(:strategies AS uuid[])) AND day BETWEEN :first AND :last",
            strategies=limited,
            **self._days(),
        )
        for row in rows:
            self.history.taken[row.strategy_id, row.day] = row.taken

    def _days(self) -> dict[str, Any]:
        return {"first": day_of(self.since, self.shop.time_zone), "last": day_of(self.until, self.shop.time_zone)}


def _packed(ids: Sequence[UUID]) -> Any:
    return arrays.uuids([one.bytes for one in ids])


def _said(pairs: Any) -> dict[Any, str]:
    return {name: value for name, value in pairs if value is not None}


def _people_statement(topics: Sequence[tuple[str, str]], channels: Sequence[str]) -> tuple[str, dict[str, Any]]:
    names, joins, values = ["c.time_zone"], [], {}
    complained = []
    for i, channel in enumerate(channels):
        column = ADDRESSES[channel]
        names += [f"COALESCE(c.{column} <> '', false) AS has_{i}", f"s{i}.reason AS stopped_{i}"]
        joins.append(
            f"LEFT JOIN suppressions s{i} ON s{i}.shop_id = :shop AND s{i}.channel = :channel_{i}"
            f" AND s{i}.address = c.{column}"
        )
        complained.append(f"CASE WHEN s{i}.reason = 'complained' THEN s{i}.created_at END")
        values[f"channel_{i}"] = channel
    for i, (channel, topic) in enumerate(topics):
        names.append(f"k{i}.state AS said_{i}")
        joins.append(
            f"LEFT JOIN consents k{i} ON k{i}.shop_id = :shop AND k{i}.customer_id = c.id"
            f" AND k{i}.channel = :asked_{i} AND k{i}.topic = :topic_{i}"
        )
        values |= {f"asked_{i}": channel, f"topic_{i}": topic}
    last = f"GREATEST({', '.join(complained)})" if complained else "CAST(NULL AS timestamptz)"
    names.append(f"{last} AS complained_at")
    statement = (
        f"SELECT {', '.join(names)}, array_agg(CAST(r.number AS integer)) AS members"  # noqa: S608 - columns of ours
        " FROM unnest(CAST(:customers AS uuid[])) WITH ORDINALITY AS r (id, number)"
        f" JOIN customers c ON c.shop_id = :shop AND c.id = r.id {' '.join(joins)}"
        f" GROUP BY {', '.join(str(i + 1) for i in range(len(names)))}"
    )
    return statement, values


# a message counts from when it went; one that is still to go, from when it is due. A code told again is no new coupon
_ACTIONS = """
SELECT a.customer_id, a.type, a.channel, a.strategy_id, a.tags, a.parameters ->> 'offer' AS offer,
  extract(epoch FROM COALESCE(a.sent_at, a.claimed_at, a.due_at))::float8 AS moment,
  CASE WHEN a.type = 'coupon' AND c.redeemed_at IS NULL AND c.deactivated_at IS NULL
    THEN extract(epoch FROM COALESCE(c.expires_at, COALESCE(a.sent_at, a.claimed_at, a.due_at)
      + COALESCE(a.parameters ->> 'expires_in', 'P14D')::interval))::float8
  END AS until
FROM actions a LEFT JOIN coupons c ON c.shop_id = :shop AND c.action_id = a.id AND a.type = 'coupon'
WHERE a.shop_id = :shop AND a.customer_id = ANY(:customers) AND a.state = ANY(:states)
  AND ((a.counted AND a.topic = 'marketing' AND a.channel = ANY(CAST(:channels AS text[]))
        AND COALESCE(a.sent_at, a.claimed_at, a.due_at) > :since)
    OR (:gives AND a.type = 'coupon' AND NOT a.result ? 'first_action'
        AND (COALESCE(a.sent_at, a.claimed_at, a.due_at) > :given_since
        OR (c.redeemed_at IS NULL AND c.deactivated_at IS NULL
            AND COALESCE(c.expires_at, COALESCE(a.sent_at, a.claimed_at, a.due_at)
              + COALESCE(a.parameters ->> 'expires_in', 'P14D')::interval) > :earliest))))
"""

# a customer is in a strategy of the group while a step is to come there, and for a while after it entered
_GROUPS = """
WITH grouped AS (
  SELECT s.id, s.key, s.definition ->> 'exclusive' AS name,
    COALESCE(s.definition ->> 'exclusive_for', 'P7D')::interval AS span
  FROM strategies s WHERE s.shop_id = :shop AND s.definition ->> 'exclusive' = ANY(CAST(:names AS text[]))
)
SELECT g.name, g.key, e.customer_id, extract(epoch FROM max(e.entered_at) + max(g.span))::float8 AS until
FROM grouped g
JOIN (SELECT DISTINCT id, strategy_id FROM rules WHERE shop_id = :shop) AS r ON r.strategy_id = g.id
JOIN enrolments e ON e.shop_id = :shop AND e.rule_id = r.id AND e.customer_id = ANY(:customers)
WHERE e.entered_at + g.span > :since
GROUP BY 1, 2, 3
UNION ALL
SELECT g.name, g.key, a.customer_id, NULL FROM grouped g
JOIN actions a ON a.shop_id = :shop AND a.strategy_id = g.id AND a.customer_id = ANY(:customers)
WHERE a.state = ANY(:states) GROUP BY 1, 2, 3
UNION ALL
SELECT g.name, g.key, r.customer_id, NULL FROM grouped g
JOIN runs r ON r.shop_id = :shop AND r.strategy_id = g.id AND r.state = 'waiting' AND r.customer_id = ANY(:customers)
GROUP BY 1, 2, 3
"""
