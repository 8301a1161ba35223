"""A customer who does not exist, written as the values that conditions see: what is not given is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy.orm import Session

from operation_agent.actions.rendering import Person as Reader
from operation_agent.customers.definitions import FEATURES
from operation_agent.decision import receipt
from operation_agent.decision.facts import Trigger, build
from operation_agent.decision.history import History, Person
from operation_agent.events.columns import column
from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import digest_id, uniform
from operation_agent.segments.columns import consent_key
from operation_agent.store.shops import Shop
from operation_agent.strategies.records import StrategyRow
from operation_agent.strategies.vocabulary import of_shop
from rules.evaluate import AT
from rules.fields import FieldType, Vocabulary, lookup, near
from rules.strategy import Strategy

from .draft import as_it_stands, circumstances, fill_purse
from .dry_run import Stage, Tried
from .trial import Trial
from .untouched import forbid_writing, untouched

NOBODY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Hypothetical:
    """`fields`: {"customer.orders": 3, "consent.email": "subscribed", "event.product_id": …}, as conditions name them;
    `<field>.since` (an instant) and `before:<field>` too. `channels`: those with an address; `suppressed`: channel →
    why. `name` stands for the customer in draws: another name, another draw."""

    fields: Mapping[str, Any]
    channels: tuple[str, ...] = ("email", "sms")
    suppressed: Mapping[str, str] = field(default_factory=dict)
    locale: str | None = None
    first_name: str | None = None
    time_zone: str | None = None
    name: str = ""


def run(
    session: Session, shop: Shop, strategy: Strategy, customer: Hypothetical, trial: Trial, *, at: datetime,
    real: StrategyRow | None = None, base_url: str = "",
) -> Tried:  # fmt: skip
    """As `dry_run.run`, on somebody who has no past: never enrolled, never written to.

    Raises Rejected with the path of a field nobody knows, or of a value that is not of its kind.
    """
    with untouched(session):
        forbid_writing(session)
        one = as_it_stands(session, shop, strategy, real)
        known = of_shop(session, shop.id)
        given = {_canonical(known, name): value for name, value in customer.fields.items()}
        said = {name.removeprefix("event."): value for name, value in given.items() if name.startswith("event.")}
        trial = _with_properties(trial, said)
        event = trial.event(shop, at)
        random_key = digest_id(shop.seed, "hypothetical", customer.name)
        trigger = trial.trigger(NOBODY, random_key, event, at, one.rules)
        kinds = {name: kind for live in one.rules for name, kind in receipt.fields(live.rule.condition)}
        histories = {column for live in one.rules for column in live.condition.histories}
        columns = _columns(known, given, kinds, histories, trigger, shop)
        history = History(people={NOBODY: _person(customer, columns)})
        fill_purse(session, shop, one, history)
        stage = Stage(shop, one, circumstances(session, shop, [one]), base_url)
        return stage.one(_reader(customer), trigger, columns, _features(columns), history, customer_id=None)


def _with_properties(trial: Trial, said: Mapping[str, Any]) -> Trial:
    properties = {name: value for name, value in said.items() if name not in ("type", "name")}
    if not properties:
        return trial
    if trial.type is None:
        raise Rejected(
            f"a trigger of kind {trial.kind} has no event", where=f"customer.fields.event.{next(iter(properties))}"
        )
    return Trial(trial.kind, trial.type, trial.name, {**properties, **(trial.properties or {})}, trial.group)


def _canonical(known: Vocabulary, name: str) -> str:
    """The field's own name; Chinese ones are read too."""
    where = f"customer.fields.{name}"
    if name.startswith("history:"):
        return name
    prefix = "before:" if name.startswith("before:") else ""
    bare = name.removeprefix(prefix)
    suffix = ".since" if bare.endswith(".since") and lookup(known.fields, bare) is None else ""
    if bare.endswith(".since") and not suffix and bare.partition(".")[0] in ("segment", "strategy", "cluster"):
        suffix = ".since"
    bare = bare.removesuffix(suffix) if suffix else bare
    bare = known.aliases.get(bare, bare)
    found = lookup(known.fields, bare)
    if found is None or bare.endswith("*"):
        guesses = near(known.fields, bare)
        hint = f"; did you mean {', '.join(guesses)}?" if guesses else ""
        raise Rejected(f"there is no field {name[:120]!r}{hint}", code="field", where=where[:200])
    if suffix and not found.has_since:
        raise Rejected(f"since when {bare} has its value is not known", code="field", where=where[:200])
    return prefix + bare + suffix


def _columns(
    known: Vocabulary, given: Mapping[str, Any], kinds: Mapping[str, str], histories: set[str], trigger: Trigger,
    shop: Shop,
) -> dict[str, Any]:  # fmt: skip
    columns: dict[str, Any] = {AT: np.array([trigger.at.timestamp()])}
    for name, value in given.items():
        if name.startswith("history:") and name not in histories:
            raise Rejected(
                "no rule asks for this history", code="field", where=f"customer.fields.{name}"[:200]
            )  # fmt: skip
        if not name.startswith("event."):
            columns[name] = _column(known, name, value)
    for name, kind in kinds.items():
        if name not in columns and name.startswith("random."):
            columns[name] = np.array([_random(shop, trigger, name)])
        elif name not in columns and not name.startswith("event."):
            columns[name] = column(kind, [None])
    return build([trigger], columns, kinds)


def _random(shop: Shop, trigger: Trigger, name: str) -> float:
    return uniform(shop.seed, "bucket", name.removeprefix("random."), str(trigger.random_key))


def _column(known: Vocabulary, name: str, value: Any) -> Any:
    """One value as a column of the field's kind. Raises Rejected for what is of another."""
    where = f"customer.fields.{name}"[:200]
    field = _type_of(known, name)
    if isinstance(value, str) and value in field.synonyms:
        said = field.synonyms[value]
        value = said == "true" if field.kind == "flag" else said
    made = column(field.kind, [value])
    if value is not None and (made[0] is None or (isinstance(made[0], float) and np.isnan(made[0]))):
        raise Rejected(f"{name} is a {_SAID.get(field.kind, field.kind)}", code="field_value", where=where)
    if value is not None and field.values is not None and value not in field.values:
        raise Rejected(f"{name} is one of {', '.join(sorted(field.values))}", code="field_value", where=where)
    return made


def _type_of(known: Vocabulary, name: str) -> FieldType:
    bare = name.removeprefix("before:")
    if name.startswith("history:"):
        return FieldType("number")
    if bare.endswith(".since") and lookup(known.fields, bare.removesuffix(".since")) is not None:
        return FieldType("time")
    found = lookup(known.fields, bare)
    assert found is not None
    return found


_SAID = {"flag": "true or false", "label": "word", "time": "instant with its offset, such as 2026-05-01T08:00:00Z"}


def _features(columns: Mapping[str, Any]) -> dict[str, Any]:
    """For what an order is worth, somebody of whom nothing is said did nothing."""
    found: dict[str, Any] = {}
    for name, feature in FEATURES.items():
        said = columns.get(f"customer.{name}")
        if feature.kind == "label":
            found[name] = column("label", [None]) if said is None else said
        else:
            blank = np.array([np.nan if feature.nullable else 0.0])
            found[name] = blank if said is None or np.isnan(said[0]) else said
    return found


def _person(customer: Hypothetical, columns: Mapping[str, Any]) -> Person:
    consents = {
        consent_key(name.removeprefix("consent.")): str(said[0])
        for name, said in columns.items()
        if name.startswith("consent.") and said[0] is not None
    }
    addresses = dict.fromkeys(customer.channels, "sample")
    return Person.of(addresses, suppressed=customer.suppressed, consents=consents, zone=customer.time_zone)


def _reader(customer: Hypothetical) -> Reader:
    return Reader(
        NOBODY, "hypothetical", "sample@example.com" if "email" in customer.channels else None, None,
        customer.first_name, None, customer.locale, customer.time_zone,
    )  # fmt: skip
