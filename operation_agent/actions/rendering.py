"""What exactly is sent: texts rendered at delivery time, coupon codes derived from the dedupe key.

A coupon's code follows from the shop's seed and the action's dedupe key: a repeated attempt asks for the same code.
The variables are those of `rules.text.VARIABLES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from liquid.exceptions import LiquidError

from operation_agent.kit.errors import Rejected
from operation_agent.kit.ids import digest_id
from rules import duration, text

from .unsubscribe import Links

_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to misread
_CODE_LENGTH = 10
_SUBJECT_LIMIT = 200
DEFAULT_EXPIRY = "P14D"


@dataclass(frozen=True, slots=True)
class Person:
    """The recipient, as far as a message or a coupon needs to know."""

    id: UUID
    external_id: str | None
    email: str | None
    phone: str | None
    first_name: str | None
    last_name: str | None
    locale: str | None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One action about to be rendered. `at` is shop time; `coupon` the result of the step it waited for."""

    action_id: UUID
    type: str
    dedupe_key: str
    parameters: Mapping[str, Any]
    person: Person
    at: datetime
    coupon: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sender:
    """What of a shop goes into its messages. `language` is for recipients without a locale."""

    shop_id: UUID
    slug: str
    name: str
    time_zone: str
    seed: str
    language: str
    links: Links


def render(sender: Sender, job: Job) -> dict[str, Any]:
    """The parameters of the delivery, as the channels of `job.type` take them.

    Raises Rejected (code 'template') when a text cannot be rendered within the limits.
    """
    try:
        return _RENDERERS[job.type](sender, job)
    except (LiquidError, RecursionError) as error:
        raise Rejected(f"the text cannot be rendered: {str(error)[:200]}", code="template") from None


def coupon_code(seed: str, dedupe_key: str) -> str:
    """Ten letters of Crockford's base 32: 50 bits of SHA-256(seed, dedupe key)."""
    number = digest_id(seed, "coupon", dedupe_key).int
    return "".join(_CODE_LETTERS[(number >> (5 * place)) & 31] for place in range(_CODE_LENGTH))


def _context(sender: Sender, job: Job) -> dict[str, Any]:
    coupon = dict(job.coupon)
    if "expires_at" in coupon:
        ends = datetime.fromisoformat(coupon["expires_at"]).astimezone(ZoneInfo(sender.time_zone))
        coupon["expires_at"] = ends.date().isoformat()
    if "percent" in coupon:
        coupon["percent"] = f"{coupon['percent']:g}"
    return {
        "customer": {"first_name": job.person.first_name},
        "shop": {"name": sender.name},
        "coupon": coupon,
        "product": job.parameters.get("product") or {},
        "unsubscribe_url": sender.links.unsubscribe(sender.shop_id, job.action_id),
    }


def _email(sender: Sender, job: Job) -> dict[str, Any]:
    context = _context(sender, job)
    locale = job.person.locale
    subject = text.in_language(job.parameters["subject"], locale, sender.language)
    body = text.in_language(job.parameters["body"], locale, sender.language)
    name = " ".join(filter(None, (job.person.first_name, job.person.last_name)))
    return {
        "subject": text.render_line(subject, context)[:_SUBJECT_LIMIT],
        "html": text.render_html(body, context),
        "to_name": name or None,
        "customer": job.person.external_id or str(job.person.id),
        "shop": sender.slug,
        "unsubscribe_url": context["unsubscribe_url"],
    }


def _coupon(sender: Sender, job: Job) -> dict[str, Any]:
    lasts = duration.parse(job.parameters.get("expires_in") or DEFAULT_EXPIRY)
    return {
        "code": coupon_code(sender.seed, job.dedupe_key),
        "percent": float(job.parameters["percent"]),
        "starts_at": job.at.isoformat(),
        "expires_at": (job.at + lasts).isoformat(),
    }


_RENDERERS: dict[str, Callable[[Sender, Job], dict[str, Any]]] = {"email": _email, "coupon": _coupon}
