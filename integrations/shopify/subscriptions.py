"""The webhooks we want of a shop against those it has: created, repaired, cleared of our own duplicates.

Only subscriptions to an address of ours are touched: the one we have now, and those we remember having had. What else
the app was told to subscribe to is somebody's. Killed halfway, the next run finds what is left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from operation_agent.kit.errors import Rejected

from . import scopes
from .client import Shopify
from .errors import ScopeMissing, UserErrors

COMPLIANCE = ("customers/data_request", "customers/redact", "shop/redact")
"""No subscription asks for these: they are entered once in the app's own configuration."""

UNNEEDED = ("order_transactions/create", "bulk_operations/finish")
"""Read when somebody sends them, but they say nothing that others do not."""

FORMAT = "JSON"


@dataclass(frozen=True, slots=True)
class Subscription:
    """As the shop has it. `topic` is the name of the enumeration: ORDERS_CREATE."""

    id: str
    topic: str
    uri: str
    format: str = FORMAT
    filter: str | None = None
    include_fields: tuple[str, ...] = ()
    metafield_namespaces: tuple[str, ...] = ()
    api_version: str | None = None

    def says_all(self) -> bool:
        """Whether it sends every message of its topic, whole and as JSON."""
        return self.format == FORMAT and not self.filter and not self.include_fields and not self.metafield_namespaces


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, by topic (`orders/create`) or by subscription."""

    create: tuple[str, ...] = ()
    repair: tuple[Subscription, ...] = ()
    remove: tuple[Subscription, ...] = ()


@dataclass
class Report:
    """What was found and done; the topics' names are Shopify's own (`orders/create`)."""

    address: str
    wanted: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    lacking_scope: dict[str, str] = field(default_factory=dict)
    not_in_version: list[str] = field(default_factory=list)
    interrupted: str | None = None

    @property
    def has_news(self) -> bool:
        return bool(self.created or self.repaired or self.removed or self.refused)


def name_of(topic: str) -> str:
    """ORDERS_CREATE of `orders/create`, CUSTOMER_TAGS_ADDED of `customer.tags_added`."""
    return topic.replace("/", "_").replace(".", "_").upper()


def address_of(public_url: str | None, slug: str) -> str:
    """Where a shop's webhooks go. Raises Rejected for an address that Shopify does not deliver to."""
    parts = urlsplit(public_url or "")
    host = parts.hostname or ""
    if parts.scheme != "https" or "." not in host or host.endswith((".local", ".localhost", ".internal")):
        raise Rejected(
            "set OPAGENT_PUBLIC_URL to the https address under which Shopify reaches this installation;"
            " until then no webhooks are asked for, and only a sync brings news",
            code="public_url",
        )
    return f"{(public_url or '').rstrip('/')}/webhooks/shopify/{slug}"


def plan(wanted: Iterable[str], found: Sequence[Subscription], *, address: str, ours: Collection[str]) -> Plan:
    """One subscription of each wanted topic to `address`, none of the same at another address of ours."""
    by_name: dict[str, list[Subscription]] = {}
    for one in found:
        if one.uri == address or one.uri in ours:
            by_name.setdefault(one.topic, []).append(one)
    create, repair, remove = [], [], []
    for topic in wanted:
        # the best first: right in all, then at the right address, then the oldest
        candidates = sorted(
            by_name.pop(name_of(topic), []), key=lambda one: (one.uri != address, not one.says_all(), _number(one.id))
        )
        if not candidates:
            create.append(topic)
            continue
        kept = candidates[0]
        if kept.uri != address or not kept.says_all():
            repair.append(kept)
        remove += candidates[1:]
    remove += [one for left in by_name.values() for one in left]
    return Plan(tuple(create), tuple(repair), tuple(remove))


def _number(gid: str) -> int:
    last = gid.rsplit("/", 1)[-1].split("?")[0]
    return int(last) if last.isdigit() else 0


def existing(client: Shopify) -> list[Subscription]:
    """All of the app's at this shop (those of the app's own configuration are not among them)."""
    found: list[Subscription] = []
    after: str | None = None
    while True:
        page = client.query("webhook_subscriptions", {"after": after})["webhookSubscriptions"]
        found += [_subscription(node) for node in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def known_topics(client: Shopify) -> frozenset[str]:
    """The names of all topics that the shop's API version has."""
    values = (client.query("webhook_topics").get("__type") or {}).get("enumValues") or ()
    return frozenset(str(one["name"]) for one in values)


def repair(
    client: Shopify, report: Report, handled: Iterable[str], *, granted: Sequence[str], ours: Collection[str]
) -> Report:
    """Bring the shop's subscriptions to what is wanted, call after call, and write into `report` what was done.

    `handled` are the topics we read; `ours` the addresses we have had. Raises what the calls raise: what was done until
    then stands in `report`.
    """
    names = known_topics(client)
    for topic in sorted(set(handled) - {*COMPLIANCE, *UNNEEDED}):
        needed = scopes.of_topic(topic)
        if names and name_of(topic) not in names:
            report.not_in_version.append(topic)
        elif needed is not None and scopes.lacking(granted, [needed]):
            report.lacking_scope[topic] = needed
        else:
            report.wanted.append(topic)
    found = existing(client)
    todo = plan(report.wanted, found, address=report.address, ours=ours)
    topics = {name_of(topic): topic for topic in handled}
    for one in todo.repair:
        _do(report, report.repaired, topics[one.topic], partial(_repair, client, one, report.address))
    for topic in todo.create:
        _do(report, report.created, topic, partial(_create, client, name_of(topic), report.address))
    for one in todo.remove:
        _do(report, report.removed, topics.get(one.topic, one.topic), partial(_remove, client, one.id))
    return report


def _do(report: Report, done: list[str], topic: str, act: Callable[[], None]) -> None:
    """A refusal of one topic is not the others'."""
    try:
        act()
    except (UserErrors, ScopeMissing) as error:
        report.refused.append({"topic": topic, "why": error.detail})
    else:
        done.append(topic)


def _create(client: Shopify, name: str, address: str) -> None:
    client.mutate(
        "webhook_subscription_create", {"topic": name, "webhookSubscription": {"uri": address, "format": FORMAT}}
    )


def _repair(client: Shopify, one: Subscription, address: str) -> None:
    """Change it in place, without a gap; where the shop keeps what was to go, put another one in its place."""
    wanted: dict[str, Any] = {
        "uri": address, "format": FORMAT, "filter": None, "includeFields": [], "metafieldNamespaces": [],
    }  # fmt: skip
    try:
        payload = client.mutate("webhook_subscription_update", {"id": one.id, "webhookSubscription": wanted})
        changed = _subscription(payload.get("webhookSubscription") or {})
        if changed.uri == address and changed.says_all():
            return
    except UserErrors:
        if one.uri != address:  # perhaps the address itself is refused: then the one there is stays
            raise
    _remove(client, one.id)
    _create(client, one.topic, address)


def _remove(client: Shopify, subscription_id: str) -> None:
    client.mutate("webhook_subscription_delete", {"id": subscription_id})


def _subscription(node: Mapping[str, Any]) -> Subscription:
    return Subscription(
        id=str(node.get("id", "")),
        topic=str(node.get("topic", "")),
        uri=str(node.get("uri", "")),
        format=str(node.get("format", "")),
        filter=node.get("filter") or None,
        include_fields=tuple(node.get("includeFields") or ()),
        metafield_namespaces=tuple(node.get("metafieldNamespaces") or ()),
        api_version=(node.get("apiVersion") or {}).get("handle"),
    )
