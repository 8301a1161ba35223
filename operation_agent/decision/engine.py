"""Decide: from facts and history to decisions, without a session, a clock or a random number.

Each candidate (a trigger whose rule's condition holds) goes: guardrails → holdout → arm. The guardrails stand before
the draw, so that whoever is held out could have been treated. One decision comes of each trigger and strategy: for the
best of its rules that nothing stops, by priority, then expected value. A customer's decisions are taken one after the
other, in rounds over all customers (`candidates.rounds`); where money or a day's executions are short within a round,
the most valuable go first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from operation_agent.experiments import assignment
from operation_agent.kit.ids import drawer, new_id
from operation_agent.strategies.live import LiveRule
from rules.limits import UNLIMITED, Limits
from rules.rule import Arm, Rule

from . import candidates, receipt
from .candidates import Circumstances as Circumstances
from .candidates import Contest, Prepared
from .candidates import is_asked as is_asked
from .cast import Cast
from .demands import may_skip
from .facts import Clusters, Columns, Trigger
from .guardrails import judge, verdict_of
from .history import Belonging, History, Kept, Message
from .judging import Judge, Judged, messages_of
from .rationing import Claim, Cutoff, Ration, ration


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided for one customer at one moment. `arm` is what is done, or for a held-out customer what would
    have been; None where a guardrail stopped it. `costs`: what each of its actions, by number, may cost at most (minor
    units), to be reserved for the treated. `decided_at` is shop time, `event_received_at` system time. `zone`: the
    customer's time zone, or the shop's. `needs_approval`: why people must say yes, empty: they need not."""

    id: UUID
    customer_id: UUID
    random_key: UUID
    strategy_id: UUID
    strategy_key: str
    rule_id: UUID
    rule_key: str
    rule_version: int
    trigger: Trigger
    verdict: str
    arm: Arm | None
    held_out: bool
    propensity: float | None
    decided_at: datetime
    event_received_at: datetime | None
    budget_id: UUID | None
    exit_on: tuple[str, ...]
    costs: tuple[int, ...]
    enrolment_key: str
    prior_orders: int
    prior_revenue_minor: int
    is_new_assignment: bool
    side_propensity: float | None
    # written out at once: the dicts of a hundred thousand receipts are what the garbage collector chokes on
    receipt_json: bytes
    rule: Rule | None = None
    campaign_id: UUID | None = None
    limits: Limits = UNLIMITED
    zone: str = "UTC"
    needs_approval: tuple[Mapping[str, Any], ...] = ()

    @property
    def receipt(self) -> dict[str, Any]:
        """As decision.receipt describes it, with all that the rule says."""
        return receipt.expanded(orjson.loads(self.receipt_json), self.rule)

    @property
    def is_enrolled(self) -> bool:
        """Whether the customer entered the rule: it reached the draw."""
        return self.arm is not None


def decide(
    circumstances: Circumstances, rules: Sequence[LiveRule], triggers: Sequence[Trigger], columns: Columns,
    features: Columns, history: History, *, cutoffs: Mapping[UUID, Cutoff] | None = None,
) -> list[Decision]:  # fmt: skip
    """Decide for every trigger; row i of `columns` (facts.build) and `features` (FeatureTable.columns) is trigger i.

    `history` takes up what is decided. `cutoffs`: by strategy, below which score money or capacity would be taken
    from better candidates of the same campaign.
    """
    prepared = candidates.prepare(rules, triggers, columns, features, circumstances)
    return settle(circumstances, prepared, triggers, features, history, cutoffs=cutoffs)


def settle(
    circumstances: Circumstances, prepared: Sequence[Prepared], triggers: Sequence[Trigger], features: Columns,
    history: History, *, cutoffs: Mapping[UUID, Cutoff] | None = None, clusters: Clusters | None = None,
) -> list[Decision]:  # fmt: skip
    """As `decide`, of rules already held against the triggers. Decisions come in the order in which they are made.
    `clusters`: of each trigger, for the receipt."""
    if not prepared:
        return []
    prior = list(zip(features["orders"].tolist(), features["revenue_minor"].tolist(), strict=True))
    cast = Cast(triggers, history, circumstances.zone)
    call = _Call(circumstances, prepared, cast, prior, cutoffs, clusters)
    return [one for contests in candidates.rounds(prepared, cast) for one in call.round(contests)]


class Drawn(NamedTuple):
    """Where the draws put a candidate. `chosen`: the arm's place; `draws`: shop's holdout, strategy's, arm."""

    held_out: bool
    side_propensity: float
    is_kept: bool
    chosen: int
    propensity: float
    draws: tuple[float | None, float | None, float]


@dataclass(slots=True)
class _Turn:
    """A contest as it is being decided. `tried`: the contenders that were stopped."""

    contest: Contest
    tried: list[tuple[int, int, Judged]]
    which: int = 0
    position: int = 0
    judged: Judged = ({}, {})
    drawn: Drawn | None = None


@dataclass(slots=True)
class _Call:
    shop: Circumstances
    prepared: Sequence[Prepared]
    cast: Cast
    prior: Sequence[tuple[float, float]]
    cutoffs: Mapping[UUID, Cutoff] | None
    clusters: Clusters | None
    judge: Judge = field(init=False)
    causes: dict[Any, orjson.Fragment] = field(default_factory=dict)
    rations: dict[UUID, Ration | None] = field(default_factory=dict)
    hosts: list[_Host | None] = field(init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(self.cast)
        self.hosts = [None] * len(self.prepared)

    def round(self, contests: Sequence[Contest]) -> list[Decision]:
        """Decide one contest of each customer: attempt after attempt, until one of its rules passes or none is left."""
        turns = [_Turn(contest, []) for contest in contests]
        pending, attempt = turns, 0
        while pending:
            for turn in pending:
                turn.which, turn.position = turn.contest.contenders[attempt]
            self._attempt(pending)
            attempt += 1
            failed = [turn for turn in pending if turn.judged[1]]
            for turn in failed:
                turn.tried.append((turn.which, turn.position, turn.judged))
            pending = [turn for turn in failed if len(turn.contest.contenders) > attempt]
        return [self._finish(turn) for turn in turns]

    def _attempt(self, turns: Sequence[_Turn]) -> None:
        by_rule: dict[int, list[_Turn]] = {}
        for turn in turns:
            by_rule.setdefault(turn.which, []).append(turn)
        by_strategy: dict[UUID, list[_Turn]] = {}
        for which, members in by_rule.items():
            host = self.host(which)
            judged = self.judge.all(host.one, [turn.position for turn in members])
            for turn, found in zip(members, judged, strict=True):
                turn.judged = found
                turn.drawn = None if found[1] else host.draw(self, turn)
            by_strategy.setdefault(host.one.live.strategy_id, []).extend(members)
        for strategy_id, members in by_strategy.items():
            rationed = self.ration(strategy_id, members[0])
            if rationed is not None:
                self._ration(rationed, members)

    def _ration(self, rationed: Ration, turns: Sequence[_Turn]) -> None:
        claims = sorted(((self._claim(turn), turn) for turn in turns), key=lambda pair: pair[0].order)
        for claim, turn in claims:
            found = rationed.given(claim)
            stopped = judge(found)
            given, before = turn.judged
            turn.judged = {**given, **found}, ({**before, **stopped} if stopped else before)
            if stopped:
                turn.drawn = None
            elif turn.drawn is not None:
                rationed.take(claim)

    def _claim(self, turn: _Turn) -> Claim:
        one, drawn, at = self.prepared[turn.which], turn.drawn, turn.position
        trigger, takes, acts = self.cast.triggers[turn.contest.row], 0, False
        if drawn is not None and not drawn.held_out:
            takes, acts = one.arm_costs[drawn.chosen][at], bool(one.live.rule.arms[drawn.chosen].places)
        return Claim(trigger, one.score[at], one.dearest[at], takes, acts)

    def host(self, which: int) -> _Host:
        found = self.hosts[which]
        if found is None:
            found = self.hosts[which] = _Host.of(self.prepared[which], self.shop)
        return found

    def ration(self, strategy_id: UUID, turn: _Turn) -> Ration | None:
        if strategy_id not in self.rations:
            live = self.prepared[turn.which].live
            self.rations[strategy_id] = ration(live, self.cast.history, self.cutoffs, self.shop.zone)
        return self.rations[strategy_id]

    def cause(self, trigger: Trigger) -> orjson.Fragment:
        """One of a schedule is the same for everybody."""
        known = (trigger.type, trigger.at) if trigger.event is None else id(trigger)
        found = self.causes.get(known)
        if found is None:
            written = receipt.cause(trigger, self.shop.campaign_id)
            found = self.causes[known] = orjson.Fragment(orjson.dumps(written))
        return found

    # -- one decision -------------------------------------------------------------------------------------------------

    def _finish(self, turn: _Turn) -> Decision:
        if turn.judged[1] and len(turn.tried) > 1:  # none passed: the decision is the best one's
            turn.which, turn.position, turn.judged = turn.tried[0]
        host, drawn, row = self.hosts[turn.which], turn.drawn, turn.contest.row
        assert host is not None
        trigger = self.cast.triggers[row]
        arm = host.one.live.rule.arms[drawn.chosen] if drawn else None
        if drawn is None:
            verdict = verdict_of(turn.judged[1]) or "nothing"
        else:
            verdict = "holdout" if drawn.held_out else "act" if arm is not None and arm.places else "nothing"
        approval = host.approval(drawn, turn.position)
        written = self._receipt(host, turn, verdict, approval)
        if drawn is not None and (self.cast.history.is_lasting or not turn.contest.is_last):
            host.take_up(self, turn, drawn)
        orders, revenue = self.prior[row]
        one, live = host.one, host.one.live
        return Decision(
            new_id(), trigger.customer_id, trigger.random_key, live.strategy_id, live.strategy.key, live.rule_id,
            live.key, live.version, trigger, verdict, arm, drawn is not None and drawn.held_out,
            drawn.propensity if drawn else None, trigger.at, trigger.event_received_at, live.budget_id,
            live.rule.exit_on, one.costs[drawn.chosen][turn.position] if drawn else (), one.key(turn.position),
            int(orders), int(revenue), drawn is not None and not drawn.is_kept,
            drawn.side_propensity if drawn else None, host.head + orjson.dumps(written)[1:], live.rule,
            self.shop.campaign_id, live.strategy.limits, self.cast.zone_of(row),
            tuple(approval["why"]) if approval else (),
        )  # fmt: skip

    def _receipt(self, host: _Host, turn: _Turn, verdict: str, approval: Mapping[str, Any] | None) -> dict[str, Any]:
        one, at, drawn, row = host.one, turn.position, turn.drawn, turn.contest.row
        written: dict[str, Any] = {
            "cause": self.cause(self.cast.triggers[row]), "who": self.cast.who(row), "seen": one.seen[at],
            "order": one.orders[at], "values": one.values[at], "score": one.score[at], "given": turn.judged[0],
        }  # fmt: skip
        cluster = self.clusters[row] if self.clusters is not None else None
        if cluster is not None:
            written["cluster"] = cluster["label_key"]
        if turn.judged[1]:
            written["stopped"] = turn.judged[1]
        if drawn is not None:
            written["side"] = (drawn.held_out, drawn.side_propensity, drawn.is_kept)
            written["draws"] = drawn.draws
        written["arm"] = one.live.rule.arms[drawn.chosen].key if drawn else None
        written["propensity"] = drawn.propensity if drawn else None
        written["verdict"] = verdict
        if len(turn.contest.contenders) > 1:
            written["alternatives"] = self._alternatives(turn)
        if turn.contest.others:
            written["others"] = turn.contest.others
        if host.has_later:
            skipped = host.skipped(self, turn)
            if skipped:
                written["may_skip"] = skipped
        if approval:
            written["approval"] = approval
        return written

    def _alternatives(self, turn: _Turn) -> list[dict[str, Any]]:
        stopped = {(which, position): judged for which, position, judged in turn.tried}
        found = []
        for which, position in turn.contest.contenders:
            if (which, position) != (turn.which, turn.position):
                other, judged = self.prepared[which], stopped.get((which, position))
                told = receipt.alternative(other.live, other.score[position])
                found.append({**told, "given": judged[0], "stopped": judged[1]} if judged else told)
        return found


@dataclass(slots=True)
class _Host:
    """A prepared rule with what its decisions share."""

    one: Prepared
    head: bytes  # of the receipt, up to what differs
    everywhere: Callable[[str], float]
    here: Callable[[str], float]
    arm: Callable[[str], float]
    holdout: float
    global_holdout: float
    has_later: bool
    unskipped: dict[str, list[int]] | None = None

    @classmethod
    def of(cls, one: Prepared, shop: Circumstances) -> _Host:
        live, seed, shares = one.live, shop.seed, (shop.global_holdout, one.live.strategy.holdout)
        strategy, rule = live.strategy.key, live.rule.key
        later = bool(one.wanted.caps) and any(len(messages) > 1 for messages in one.wanted.messages)
        return cls(
            one,
            orjson.dumps(receipt.head(live, one.estimator, shares))[:-1] + b",",
            drawer(seed, *assignment.global_salt("")[:-1]),
            drawer(seed, *assignment.holdout_salt(strategy, "")[:-1]),
            drawer(seed, *assignment.arm_salt(strategy, rule, "")[:-1]),
            shares[1],
            shares[0],
            later,
        )

    def draw(self, call: _Call, turn: _Turn) -> Drawn:
        row = turn.contest.row
        who, past = call.cast.who(row), call.cast.pasts[call.cast.code[row]]
        known = past.sides.get(self.one.live.strategy_id) if past is not None else None
        first: float | None = None
        second: float | None = None
        if known is not None:
            held_out, propensity = known
        else:
            first, second = self.everywhere(who), self.here(who)
            held_out = first < self.global_holdout or second < self.holdout
            share = assignment.held_out_share(self.holdout, self.global_holdout)
            propensity = share if held_out else 1 - share
        third = self.arm(who)
        index = assignment.pick(self.one.shares, third)
        of_arm = propensity if held_out else propensity * self.one.shares[index]
        return Drawn(held_out, propensity, known is not None, index, of_arm, (first, second, third))

    def approval(self, drawn: Drawn | None, position: int) -> dict[str, Any] | None:
        """Of the arm that is done; {why, approvers, expires_in (seconds)}."""
        if drawn is None or drawn.held_out or not self.one.wanted.approvals:
            return None
        arm, costs = self.one.live.rule.arms[drawn.chosen], self.one.costs[drawn.chosen][position]
        asked = [(needed, list(needed.why(arm, costs))) for needed in self.one.wanted.approvals]
        given = [(needed, why) for needed, why in asked if why]
        if not given:
            return None
        unique: list[dict[str, Any]] = []
        for one in (one for _, why in given for one in why):
            if one not in unique:
                unique.append(one)
        return {
            "why": unique,
            "approvers": max(needed.approvers for needed, _ in given),
            "expires_in": min(needed.expires_in for needed, _ in given),
        }

    def skipped(self, call: _Call, turn: _Turn) -> dict[str, list[int]]:
        """By arm, the later messages that caps may hold back."""
        row = turn.contest.row
        past = call.cast.pasts[call.cast.code[row]]
        if past is not None and past.messages:
            return self._skipped(call.cast.at(row), messages_of(past, self.one))
        if self.unskipped is None:
            self.unskipped = self._skipped(0.0, ())
        return self.unskipped

    def _skipped(self, at: float, messages: Sequence[Sequence[Any]]) -> dict[str, list[int]]:
        arms = enumerate(self.one.live.rule.arms)
        return {arm.key: found for i, arm in arms if (found := may_skip(self.one.wanted, i, at, messages))}

    def take_up(self, call: _Call, turn: _Turn, drawn: Drawn) -> None:
        """Let later decisions of the customer see this one."""
        live, wanted, row = self.one.live, self.one.wanted, turn.contest.row
        past, at = call.cast.past_of(row), call.cast.at(row)
        past.sides.setdefault(live.strategy_id, Kept(drawn.held_out, drawn.side_propensity))
        past.enter(live.rule_id, self.one.key(turn.position), at)
        limits = live.strategy.limits
        if wanted.is_counted:
            past.messages += [
                Message(at + timed.offset, channel, live.strategy_id, tags)
                for timed, channel, tags in wanted.messages[drawn.chosen]
            ]
        past.coupons += wanted.coupons_from(drawn.chosen, at, live.strategy_id)
        if limits.exclusive is not None:
            until = at + limits.exclusive_for.total_seconds()
            past.belong(Belonging(limits.exclusive, live.strategy.key, until))
