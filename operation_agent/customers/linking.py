"""Whose event is this: the pure part of identity resolution.

Events are taken in order of arrival, each exactly as if it had come alone. An event belongs to the owner of its
strongest identity (external, shopify, email, phone, anonymous). Its other identities are linked to that customer
when nobody owns them; when somebody else does, the two customers are merged, with these limits:

- Two customers that each have an external id are never merged by a shared identity: a family shares a mailbox, a
  shop's counter shares a device. The identity stays with its owner; the event goes to its strongest identity's.
- Two customers that each have a Shopify id are not merged by a shared e-mail, phone or device either.
- An alias (`identity.previous`) is the shop saying that two ids are one person: it always merges. One that names no
  person, only a device, says that two devices are one: it merges no more than any shared device does.

So an anonymous visitor who logs in is merged into the known customer unless that visitor had logged in as somebody
else. The customer seen first (by `occurred_at`, then `random_key`) survives a merge, whatever was processed first.

Events about a message (`email.…`) come from a provider: they belong to the customer of the action they name, else to
the owner of their strongest known identity or the address, and never make or merge a customer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from operation_agent.events.event import IDENTITY_KINDS, Event
from operation_agent.kit.ids import digest_id, new_id

Identity = tuple[str, str]
ACTION = "action"
"""Pseudo-kind under which `owners` holds the customer of an action."""

_WEAK = frozenset({"email", "phone", "anonymous"})


@dataclass(slots=True, eq=False)
class Person:
    """A customer while a batch is being resolved. `is_new`: not in the database yet."""

    id: UUID
    random_key: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    has_external: bool = False
    has_shopify: bool = False
    is_new: bool = False
    created_at: datetime | None = None
    merged_into: Person | None = None

    def root(self) -> Person:
        person = self
        while person.merged_into is not None:
            person = person.merged_into
        return person


@dataclass(frozen=True, slots=True)
class Merge:
    loser: Person
    event: Event


@dataclass(slots=True)
class Linker:
    """Folds events into owners, links and merges. `owners` holds what the database knows of these identities."""

    seed: str
    owners: dict[Identity, Person]
    links: dict[Identity, tuple[Person, datetime]] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)
    created: list[Person] = field(default_factory=list)

    def take(self, event: Event) -> Person | None:
        """The customer of `event` (before later merges: ask `.root()` at the end), or None without identity."""
        if is_provider_event(event):
            person = self._addressee(event)
        else:
            known = identities(event)
            person = self._customer(event, known) if known else None
        if person is not None:
            person.first_seen_at = min(person.first_seen_at, event.occurred_at)
            person.last_seen_at = max(person.last_seen_at, event.occurred_at)
        return person

    def _addressee(self, event: Event) -> Person | None:
        for identity in lookups(event):
            if identity in self.owners:
                return self.owners[identity].root()
        return None

    def _customer(self, event: Event, known: Sequence[Identity]) -> Person:
        person = self._owner(known[0]) or self._create(event, known[0])
        for kind, value in known:
            owner = self._owner((kind, value))
            if owner is None:
                self._link((kind, value), person, event)
            elif owner is not person and _may_merge(person, owner, kind):
                person = self._merge(person, owner, event)
        for identity in previous(event):
            owner = self._owner(identity)
            if owner is None:
                self._link(identity, person, event)
            elif owner is not person and (_names_a_person(event) or _may_merge(person, owner, identity[0])):
                person = self._merge(person, owner, event)
        return person

    def _owner(self, identity: Identity) -> Person | None:
        owner = self.owners.get(identity)
        return owner.root() if owner else None

    def _create(self, event: Event, first: Identity) -> Person:
        person = Person(
            id=new_id(), random_key=digest_id(self.seed, *first), first_seen_at=event.occurred_at,
            last_seen_at=event.occurred_at, is_new=True, created_at=event.received_at,
        )  # fmt: skip
        self.created.append(person)
        return person

    def _link(self, identity: Identity, person: Person, event: Event) -> None:
        self.owners[identity] = person
        self.links[identity] = (person, event.occurred_at)
        person.has_external |= identity[0] == "external"
        person.has_shopify |= identity[0] == "shopify"

    def _merge(self, one: Person, other: Person, event: Event) -> Person:
        survivor, loser = sorted((one, other), key=lambda person: (person.first_seen_at, person.random_key))
        loser.merged_into = survivor
        survivor.has_external |= loser.has_external
        survivor.has_shopify |= loser.has_shopify
        survivor.last_seen_at = max(survivor.last_seen_at, loser.last_seen_at)
        self.merges.append(Merge(loser, event))
        return survivor


def _may_merge(one: Person, other: Person, through: str) -> bool:
    if one.has_external and other.has_external:
        return False
    return not (through in _WEAK and one.has_shopify and other.has_shopify)


def _names_a_person(alias: Event) -> bool:
    return "external" in alias.identity or "shopify" in alias.identity


def is_provider_event(event: Event) -> bool:
    return event.type.startswith("email.")


def identities(event: Event) -> list[Identity]:
    """The event's own identities, strongest first."""
    found: Mapping[str, str] = event.identity
    known = [(kind, found[kind]) for kind in IDENTITY_KINDS if found.get(kind)]
    if not known and found.get("previous"):
        return [("anonymous", found["previous"])]
    return known


def previous(event: Event) -> list[Identity]:
    """An alias's old id, as both kinds it may be: then it does not matter whether the alias comes first. Where only a
    Shopify id is said to be the new one, so was the old one; where only a device is, so was the old one."""
    old = event.identity.get("previous")
    if not old or old == event.identity.get("external"):
        return []
    if "external" in event.identity:
        return [("external", old), ("anonymous", old)]
    return [("shopify", old)] if "shopify" in event.identity else [("anonymous", old)]


def lookups(event: Event) -> list[Identity]:
    """Everything to ask the database about before the event is taken."""
    if not is_provider_event(event):
        return [*identities(event), *previous(event)]
    action, address = event.properties.get("action_id"), event.properties.get("address")
    wanted = [(ACTION, action), *identities(event), ("email", address)]
    return [(kind, str(value)) for kind, value in wanted if value]
