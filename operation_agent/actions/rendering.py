"""What exactly is sent: texts rendered at delivery time, coupon codes derived from the dedupe key.

A coupon's code follows from the shop's seed and the action's dedupe key: a repeated attempt asks for the same code. One
that was settled when the action was taken (`coupon_codes`) stands in the parameters. The variables are those of
`rules.text.VARIABLES`.
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
from rules import duration, offer, text
from rules.tree import LANGUAGES

from .unsubscribe import Links

_CODE_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to misread
_CODE_LENGTH = 10
_SUBJECT_LIMIT = 200
DEFAULT_EXPIRY = offer.DEFAULT_EXPIRY


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
    shopify_id: str | None = None
    random_key: UUID | None = None


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
    """What of a shop goes into its messages. `language` is for recipients without a locale; `currency` that of the
    amounts it gives."""

    shop_id: UUID
    slug: str
    name: str
    time_zone: str
    seed: str
    language: str
    links: Links
    currency: str | None = None


def render(sender: Sender, job: Job) -> dict[str, Any]:
    """The parameters of the delivery, as the channels of `job.type` take them.

    Raises Rejected (code 'template') when a text cannot be rendered within the limits.
    """
    try:
        return _RENDERERS[job.type](sender, job)
    except (LiquidError, RecursionError) as error:
        raise Rejected(f"the text cannot be rendered: {str(error)[:200]}", code="template") from None


def coupon_code(seed: str, *parts: str) -> str:
    """Ten letters of Crockford's base 32: 50 bits of SHA-256(seed, parts). Of one action `parts` are its dedupe key."""
    number = digest_id(seed, "coupon", *parts).int
    return "".join(_CODE_LETTERS[(number >> (5 * place)) & 31] for place in range(_CODE_LENGTH))


def _context(sender: Sender, job: Job) -> dict[str, Any]:
    return {
        "customer": {"first_name": job.person.first_name},
        "shop": {"name": sender.name},
        "coupon": _told(sender, job),
        "product": job.parameters.get("product") or {},
        "unsubscribe_url": sender.links.unsubscribe(sender.shop_id, job.action_id),
    }


def _told(sender: Sender, job: Job) -> dict[str, Any]:
    """What a text may say of the coupon before it."""
    coupon = job.coupon
    if not coupon:
        return {}
    found: dict[str, Any] = {"code": coupon.get("code")}
    if "expires_at" in coupon:
        ends = datetime.fromisoformat(coupon["expires_at"]).astimezone(ZoneInfo(sender.time_zone))
        found["expires_at"] = ends.date().isoformat()
    terms = coupon.get("terms") or {name: float(coupon[name]) for name in ("percent",) if name in coupon}
    if "percent" in terms:
        found["percent"] = f"{float(terms['percent']):g}"
    if "amount" in terms:
        found["amount"] = offer.priced(terms["amount"], sender.currency)
    if terms:
        language = (job.person.locale or sender.language).replace("_", "-").split("-")[0].lower()
        known = language if language in LANGUAGES else sender.language
        found["description"] = offer.described(terms, known, sender.currency)
    return found


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
    """Raises Rejected for a code that is for one customer alone whom the shop does not know."""
    given = job.parameters
    terms = offer.terms_of(given)
    if terms.get("eligible") == "customer" and job.person.shopify_id is None:
        raise Rejected("the code is for this customer alone, and the shop has no account of theirs", code="eligible")
    lasts = duration.parse(given.get("expires_in") or DEFAULT_EXPIRY)
    return {
        "code": given.get("code") or coupon_code(sender.seed, job.dedupe_key),
        **({"percent": float(given["percent"])} if "percent" in given else {}),
        "terms": terms,
        "starts_at": job.at.isoformat(),
        "expires_at": (job.at + lasts).isoformat(),
        **({"customer": job.person.shopify_id} if terms.get("eligible") == "customer" else {}),
    }


_RENDERERS: dict[str, Callable[[Sender, Job], dict[str, Any]]] = {"email": _email, "coupon": _coupon}
