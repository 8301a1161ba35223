"""Filling and closing code pools, and taking coupons back, at the shop system: read, call, write down, again and again.

Only one at a time works on a pool (`tasks._job`). A crash anywhere is made good by the next one: every call may be made
twice, and what the shop has already is recognised.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from integrations.registry import Configured, load
from operation_agent.actions import pool_filling, recalling
from operation_agent.actions.channel import Codes
from operation_agent.actions.coupon_codes import FILL
from operation_agent.actions.pool_filling import Add, Check, Deactivate, Make, Step
from operation_agent.kit.clock import SYSTEM, Clock, monotonic
from operation_agent.kit.errors import AgentError, Denied, Rejected, Retryable
from operation_agent.kit.logging import logger
from operation_agent.store import outbox
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import connection

from .delivery import senders

log = logger(__name__)

POLL = 1.0
LONGEST = 600.0
"""Seconds: between two looks at a batch, and until a job rings for the rest and gives its place back."""
_SOON = timedelta(seconds=10)
_LATER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class _Shopkeeper:
    """The shop system that a shop's codes are made at."""

    shop: Shop
    configured: Configured
    codes: Codes


def _shopkeeper(engine: Engine, shop_id: UUID) -> _Shopkeeper | None:
    """None while nothing is connected, or it refuses everything."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        configured = load(session, shop_id, "coupon")
        problem = connection.problem_of(session, shop_id, configured.vendor) if configured else None
    if configured is None or problem is not None:
        log.warning("no_codes_now", shop=shop.slug, problem=problem or "no_integration")
        return None
    channel = senders().get(shop_id, shop.sandbox, configured).channel
    if not isinstance(channel, Codes):
        log.warning("no_codes_here", shop=shop.slug, vendor=configured.vendor)
        return None
    return _Shopkeeper(shop, configured, channel)


def fill(engine: Engine, shop_id: UUID, pool_id: UUID, *, clock: Clock = SYSTEM, poll: float = POLL) -> None:
    """Make the codes that a pool lacks, or close it at the shop; ends when there is nothing to do, or it must wait."""
    found = _shopkeeper(engine, shop_id)
    if found is not None:
        Filler(engine, found.shop, found.codes, clock, poll, credentials=found.configured.secrets).run(pool_id)


@dataclass
class Filler:
    """One pool's work. `at_step` is called between calling and writing down: tests crash there."""

    engine: Engine
    shop: Shop
    codes: Codes
    clock: Clock = SYSTEM
    poll: float = POLL
    at_step: Callable[[str], None] = lambda step: None
    credentials: bytes | None = None

    def run(self, pool_id: UUID) -> None:
        end = monotonic() + LONGEST
        while monotonic() < end:
            with for_shop(self.engine, self.shop.id) as session:
                step = pool_filling.next_step(session, self.shop, pool_id, at=self.clock.now())
            if step is None:
                return
            try:
                self._do(pool_id, step)
            except AgentError as error:
                self._trouble(pool_id, error)
                return
        with for_shop(self.engine, self.shop.id) as session:
            outbox.ring(session, self.shop.id, [(FILL, str(pool_id))], at=self.clock.now())

    def _do(self, pool_id: UUID, step: Step) -> None:
        self.at_step(f"before {type(step).__name__}")
        if isinstance(step, Make):
            self._make(pool_id, step)
        elif isinstance(step, Add):
            batch = self.codes.add_codes(step.discount_ref, list(step.codes))
            self.at_step("added")
            with for_shop(self.engine, self.shop.id) as session:
                pool_filling.added(session, self.shop, pool_id, step, batch, at=self.clock.now())
        elif isinstance(step, Check):
            self._check(pool_id, step)
        else:
            self._deactivate(pool_id, step)

    def _make(self, pool_id: UUID, step: Make) -> None:
        try:
            ref = self.codes.make_discount(step.wanted)
        except Rejected as error:
            if error.code != "taken":
                raise
            with for_shop(self.engine, self.shop.id) as session:
                refused = {step.number: error.detail}
                pool_filling.settled(session, self.shop, pool_id, made=[], refused=refused, at=self.clock.now())
            return
        self.at_step("made")
        with for_shop(self.engine, self.shop.id) as session:
            pool_filling.made(session, self.shop, pool_id, step, ref, at=self.clock.now())

    def _check(self, pool_id: UUID, step: Check) -> None:
        found = self.codes.added(step.batch_ref)
        if found is not None and not found.is_done:
            time.sleep(self.poll)
            return
        told = dict.fromkeys(step.codes, "") if found is None else found.refused
        # one that is taken may be ours, from a batch whose answer was lost
        doubtful = [code for code in step.codes if code in told]
        ours = {code for code in doubtful if self.codes.discount_of(code) == step.discount_ref}
        missing = {code: step.codes[code] for code in doubtful if code not in ours}
        made = [number for code, number in step.codes.items() if code not in missing]
        again = list(missing.values()) if found is None else []
        refused = {} if found is None else {number: told[code] for code, number in missing.items()}
        self.at_step("checked")
        with for_shop(self.engine, self.shop.id) as session:
            pool_filling.settled(
                session, self.shop, pool_id, made=made, refused=refused, again=again, at=self.clock.now()
            )

    def _deactivate(self, pool_id: UUID, step: Deactivate) -> None:
        used = self.codes.deactivate(step.discount_ref)
        self.at_step("deactivated")
        with for_shop(self.engine, self.shop.id) as session:
            pool_filling.deactivated(session, self.shop, pool_id, used=used, at=self.clock.now())

    def _trouble(self, pool_id: UUID, error: AgentError) -> None:
        log.warning("code_pool_waits", shop=self.shop.slug, pool=str(pool_id), code=error.code, detail=error.detail)
        at = self.clock.now()
        with for_shop(self.engine, self.shop.id) as session:
            until = _try_again(session, self.shop, self.codes.name, error, self.credentials, at)
            if until is None:
                pool_filling.fail(session, self.shop, pool_id, error.detail, at=at)
            else:
                pool_filling.postpone(session, self.shop.id, pool_id, error.detail, until=until, at=at)


def _try_again(
    session: Session, shop: Shop, vendor: str, error: AgentError, credentials: bytes | None, at: datetime
) -> datetime | None:
    """When (system time) after an error of the shop system; None: it will say the same again."""
    if isinstance(error, Denied):
        problem: connection.Problem = "scopes" if error.code == "scope_missing" else "unauthorized"
        connection.note_problem(session, shop, vendor, problem, error.detail, at=at, credentials=credentials)
        return at + _LATER
    if isinstance(error, Rejected):
        return None
    return at + (max(error.retry_after, _SOON) if isinstance(error, Retryable) else _SOON)


def recall(engine: Engine, shop_id: UUID, action_id: UUID, *, clock: Clock = SYSTEM) -> None:
    """Take back a coupon that somebody asked to be taken back; twice is once."""
    found = _shopkeeper(engine, shop_id)
    if found is None:
        with for_shop(engine, shop_id) as session:
            why = "no shop system is connected, or it refuses everything"
            recalling.postpone(session, shop_id, action_id, why, until=clock.now() + _SOON)
        return
    with for_shop(engine, shop_id) as session:
        coupon = recalling.coupon_of(session, shop_id, action_id)
    if coupon.recalled_at is None or coupon.deactivated_at is not None:
        return
    try:
        used = _take_back(found.codes, coupon)
    except AgentError as error:
        with for_shop(engine, shop_id) as session:
            until = _try_again(session, found.shop, found.codes.name, error, found.configured.secrets, clock.now())
            recalling.postpone(session, shop_id, action_id, error.detail, until=until)
        return
    with for_shop(engine, shop_id) as session:
        recalling.done(session, found.shop, action_id, used=used, at=clock.now())


def _take_back(codes: Codes, coupon: recalling.Coupon) -> int:
    assert coupon.discount_ref is not None  # `recalling.ask` saw to it
    try:
        if coupon.pool_id is not None:  # the discount is everybody's
            return codes.drop_code(coupon.discount_ref, coupon.code)
        return codes.deactivate(coupon.discount_ref)
    except Rejected:
        if codes.discount_of(coupon.code) is None:  # somebody has deleted it at the shop
            return 0
        raise
