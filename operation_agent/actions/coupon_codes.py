"""Which code a coupon step gives, settled when the action is taken, in the claim's own transaction.

Most steps have a code of their own, made of the dedupe key. A step that names an `offer` gives a customer the same code
for as long as it lasts: what is out already is told again, and costs nothing more; afterwards comes another one. A step
with a `pool` takes a code that was made ahead, one for each customer. Claims of coupons of one shop queue up behind an
advisory lock (`claiming`), so no two look at the same customer or code at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from operation_agent.store.shops import Shop
from rules import duration, offer

from .claimed import Claimed
from .marking import Proof
from .rendering import DEFAULT_EXPIRY, coupon_code

FILL = "code_pools.fill"
_BUSY = timedelta(seconds=5)
_EMPTY = timedelta(seconds=60)


@dataclass(slots=True)
class Settled:
    """`calling`: to be made by the provider, with their code. `given`: done without a call; of these `again` had been
    paid for before. `waiting`: (action, why, for how long). `refused`: (action, why), for good. `low`: pools to
    fill up."""

    calling: list[Claimed] = field(default_factory=list)
    given: list[Proof] = field(default_factory=list)
    again: list[UUID] = field(default_factory=list)
    waiting: list[tuple[UUID, str, timedelta]] = field(default_factory=list)
    refused: list[tuple[UUID, str]] = field(default_factory=list)
    low: set[UUID] = field(default_factory=set)


def settle(session: Session, shop: Shop, claimed: Sequence[Claimed]) -> Settled:
    """Sort out the coupons that may go now; codes of offers and codes taken from pools are written down."""
    found = Settled()
    offers, pools = [], []
    for one in claimed:
        if "pool" in one.parameters:
            pools.append(one)
        elif "offer" in one.parameters:
            offers.append(one)
        else:
            found.calling.append(one)
    if offers:
        _Offers(session, shop, offers).settle(offers, found)
    if pools:
        _Pools(session, shop, pools).settle(pools, found)
    return found


# -- offers -----------------------------------------------------------------------------------------------------------

_OUT = """
SELECT c.customer_id, c.offer, c.action_id, c.code, c.terms, c.expires_at, c.redeemed_at, c.deactivated_at,
  c.recalled_at, c.discount_ref, a.provider, a.result
FROM coupons c JOIN actions a ON a.shop_id = c.shop_id AND a.id = c.action_id
WHERE c.shop_id = :shop AND c.customer_id = ANY(:customers) AND c.offer = ANY(:offers)
ORDER BY c.issued_at, c.action_id
"""

# one that has its code, and was or will be tried with it
_UNDER_WAY = """
SELECT a.customer_id, a.id, a.parameters ->> 'offer' AS offer FROM actions a
WHERE a.shop_id = :shop AND a.type = 'coupon' AND a.parameters ? 'offer' AND a.parameters ->> 'offer' = ANY(:offers)
  AND a.customer_id = ANY(:customers) AND a.state IN ('ready', 'sending', 'unknown', 'parked')
  AND a.parameters ? 'code'
"""

_KEEP = """
UPDATE actions a SET parameters = a.parameters || jsonb_build_object('code', r.code)
FROM unnest(CAST(:ids AS uuid[]), CAST(:codes AS text[])) AS r (id, code)
WHERE a.shop_id = :shop AND a.id = r.id
"""

Whose = tuple[UUID, str]


class _Offers:
    """What is out of these offers, by customer and offer."""

    def __init__(self, session: Session, shop: Shop, claimed: Sequence[Claimed]):
        self._session, self._shop = session, shop
        values = {
            "shop": shop.id,
            "customers": list({one.person.id for one in claimed}),
            "offers": list({one.parameters["offer"] for one in claimed}),
        }
        self._out: dict[Whose, list[Row[Any]]] = {}
        for row in session.execute(text(_OUT), values):
            self._out.setdefault((row.customer_id, row.offer), []).append(row)
        self._under_way: dict[Whose, set[UUID]] = {}
        for row in session.execute(text(_UNDER_WAY), values):
            self._under_way.setdefault((row.customer_id, row.offer), set()).add(row.id)

    def settle(self, claimed: Sequence[Claimed], found: Settled) -> None:
        made: list[Claimed] = []
        for one in claimed:
            whose = one.person.id, one.parameters["offer"]
            known = None if "code" in one.parameters else self._lasting(whose, one)
            if known is not None:
                found.given.append(_again(one, known))
                found.again.append(one.id)
            elif self._under_way.get(whose, set()) - {one.id}:
                found.waiting.append((one.id, f"the code of offer {whose[1]!r} is being made", _BUSY))
            else:
                self._under_way.setdefault(whose, set()).add(one.id)
                made.append(self._with_code(whose, one))
        if made:
            self._session.execute(
                text(_KEEP),
                {
                    "shop": self._shop.id,
                    "ids": [one.id for one in made],
                    "codes": [one.parameters["code"] for one in made],
                },
            )
        found.calling += made

    def _lasting(self, whose: Whose, one: Claimed) -> Row[Any] | None:
        """A code of the same terms that can still be used, the last one given."""
        wanted = offer.terms_of(one.parameters)
        for row in reversed(self._out.get(whose, [])):
            is_over = row.redeemed_at or row.deactivated_at or row.recalled_at or row.expires_at <= one.moment
            if not is_over and row.terms == wanted:
                return row
        return None

    def _with_code(self, whose: Whose, one: Claimed) -> Claimed:
        """The code follows from the customer and the offer, and from how many it has had: a repeated attempt, which has
        its code already, asks for the same one."""
        if "code" in one.parameters:
            return one
        key = str(one.person.random_key or one.person.id)
        number = str(len(self._out.get(whose, [])))
        code = coupon_code(self._shop.seed, "offer", whose[1], key, number)
        return replace(one, parameters={**one.parameters, "code": code})


def _again(one: Claimed, row: Row[Any]) -> Proof:
    result = {**row.result, "first_action": str(row.action_id)}
    return Proof(one.id, None, row.discount_ref, result, one.moment, None, row.provider)


# -- pools ------------------------------------------------------------------------------------------------------------

_POOLS = """
SELECT DISTINCT ON (p.name) p.id, p.name, p.vendor, p.terms, p.state, p.error, p.discount_ref, p.ends_at, p.low_water
FROM code_pools p WHERE p.shop_id = :shop AND p.name = ANY(:names)
ORDER BY p.name, p.state = 'closed', p.created_at DESC
"""

_THEIRS = """
SELECT k.pool_id, k.customer_id, k.code, k.action_id, c.redeemed_at, c.deactivated_at, c.recalled_at
FROM pool_codes k LEFT JOIN coupons c ON c.shop_id = k.shop_id AND c.action_id = k.action_id
WHERE k.shop_id = :shop AND k.pool_id = ANY(:pools) AND k.customer_id = ANY(:customers)
"""

_FREE = """
SELECT number, code FROM pool_codes
WHERE shop_id = :shop AND pool_id = :pool AND is_made AND given_at IS NULL
ORDER BY number LIMIT :limit FOR UPDATE SKIP LOCKED
"""

_GIVE = """
UPDATE pool_codes k SET customer_id = r.customer_id, action_id = r.action_id, given_at = r.at
FROM unnest(CAST(:numbers AS integer[]), CAST(:customers AS uuid[]), CAST(:actions AS uuid[]),
  CAST(:at AS timestamptz[])) AS r (number, customer_id, action_id, at)
WHERE k.shop_id = :shop AND k.pool_id = :pool AND k.number = r.number
"""

_FREE_COUNT = """
SELECT count(*) FROM pool_codes WHERE shop_id = :shop AND pool_id = :pool AND is_made AND given_at IS NULL
"""


class _Pools:
    """The pools that these steps name."""

    def __init__(self, session: Session, shop: Shop, claimed: Sequence[Claimed]):
        self._session, self._shop = session, shop
        names = list({one.parameters["pool"] for one in claimed})
        rows = session.execute(text(_POOLS), {"shop": shop.id, "names": names})
        self._pools: Mapping[str, Row[Any]] = {row.name: row for row in rows}
        values = {
            "shop": shop.id,
            "pools": [row.id for row in self._pools.values()],
            "customers": list({one.person.id for one in claimed}),
        }
        theirs = session.execute(text(_THEIRS), values)
        self._theirs: dict[tuple[UUID, UUID], Row[Any]] = {(row.pool_id, row.customer_id): row for row in theirs}

    def settle(self, claimed: Sequence[Claimed], found: Settled) -> None:
        wanting: dict[str, list[Claimed]] = {}
        for one in claimed:
            name = one.parameters["pool"]
            pool = self._pools.get(name)
            if pool is None:
                found.waiting.append((one.id, f"there is no code pool {name!r}", _EMPTY))
            elif (reason := _unusable(pool, one)) is not None:
                found.refused.append((one.id, reason))
            elif (known := self._theirs.get((pool.id, one.person.id))) is not None:
                self._known(pool, one, known, found)
            else:
                wanting.setdefault(name, []).append(one)
        for name, listed in wanting.items():
            self._give(self._pools[name], listed, found)

    def _known(self, pool: Row[Any], one: Claimed, known: Row[Any], found: Settled) -> None:
        """The same customer has the same code; one that is used up is nothing to write to anybody about."""
        if known.redeemed_at or known.deactivated_at or known.recalled_at:
            found.refused.append((one.id, f"the customer's code of pool {pool.name!r} was used or taken back"))
            return
        if known.action_id == one.id:  # taken before, and then the claim was cut off
            found.given.append(_from_pool(pool, one, known.code))
            return
        proof = _from_pool(pool, one, known.code)
        found.given.append(replace(proof, result={**proof.result, "first_action": str(known.action_id)}))
        found.again.append(one.id)

    def _give(self, pool: Row[Any], wanting: Sequence[Claimed], found: Settled) -> None:
        values = {"shop": self._shop.id, "pool": pool.id}
        people = list(dict.fromkeys(one.person.id for one in wanting))
        free = self._session.execute(text(_FREE), {**values, "limit": len(people)}).all()
        given: dict[UUID, tuple[Row[Any], Claimed]] = {}
        left = iter(free)
        for one in wanting:
            first = given.get(one.person.id)
            if first is not None:
                proof = _from_pool(pool, one, first[0].code)
                found.given.append(replace(proof, result={**proof.result, "first_action": str(first[1].id)}))
                found.again.append(one.id)
            elif (row := next(left, None)) is not None:
                given[one.person.id] = row, one
                found.given.append(_from_pool(pool, one, row.code))
            else:
                found.waiting.append((one.id, _why_empty(pool), _EMPTY))
        if given:
            taken = list(given.values())
            self._session.execute(
                text(_GIVE),
                {
                    **values,
                    "numbers": [row.number for row, _ in taken],
                    "customers": [one.person.id for _, one in taken],
                    "actions": [one.id for _, one in taken],
                    "at": [one.moment for _, one in taken],
                },
            )
        is_empty = len(free) < len(people)
        if is_empty or self._session.execute(text(_FREE_COUNT), values).scalar_one() < pool.low_water:
            found.low.add(pool.id)


def _unusable(pool: Row[Any], one: Claimed) -> str | None:
    if pool.state == "closed":
        return f"code pool {pool.name!r} was closed"
    if pool.ends_at is not None and pool.ends_at <= one.moment:
        return f"the codes of pool {pool.name!r} have ended"
    if pool.terms != offer.terms_of(one.parameters):
        return f"code pool {pool.name!r} gives something else than this step says"
    return None


def _why_empty(pool: Row[Any]) -> str:
    told = f" and cannot be filled: {pool.error}" if pool.state == "failed" else ""
    return f"code pool {pool.name!r} is empty{told}"


def _from_pool(pool: Row[Any], one: Claimed, code: str) -> Proof:
    terms = offer.terms_of(one.parameters)
    lasts = duration.parse(one.parameters.get("expires_in") or DEFAULT_EXPIRY)
    result = {
        "code": code,
        **({"percent": float(terms["percent"])} if "percent" in terms else {}),
        "terms": terms,
        "expires_at": (pool.ends_at or one.moment + lasts).isoformat(),
        "discount_ref": pool.discount_ref,
        "pool_id": str(pool.id),
    }
    return Proof(one.id, None, pool.discount_ref, result, one.moment, None, pool.vendor)


_WAIT = """
UPDATE actions a SET retry_at = r.retry_at, reason = r.reason
FROM unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[]), CAST(:retries AS timestamptz[])) AS r (id, reason, retry_at)
WHERE a.shop_id = :shop AND a.id = r.id AND a.state = 'ready'
"""


def write_waiting(
    session: Session, shop_id: UUID, waiting: Sequence[tuple[UUID, str, timedelta]], *, at: datetime
) -> None:
    """Look at these again later; `at` is system time."""
    if waiting:
        ids, reasons, spans = zip(*waiting, strict=True)
        values = {"ids": list(ids), "reasons": list(reasons), "retries": [at + span for span in spans]}
        session.execute(text(_WAIT), {"shop": shop_id, **values})
