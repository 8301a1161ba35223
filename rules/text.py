"""Texts with variables, in Liquid: checked when a rule is read, rendered when a message is sent.

A template may loop and branch, but within limits, and it reaches nothing outside: no includes, no file, and only the
variables of VARIABLES. The limits hold against a text that a person (or a model) wrote badly, not only against malice.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from .tree import Node

VARIABLES: dict[str, str] = {
    "customer.first_name": "may be empty: {{ customer.first_name | default: 'there' }}",
    "shop.name": "the shop's name",
    "coupon.code": "the code of the coupon step before this message in the same arm",
    "coupon.percent": "its discount in percent, where it gives a percentage",
    "coupon.amount": "its discount in the shop's currency, where it gives an amount",
    "coupon.description": "what it gives, in the reader's language, whatever it gives",
    "coupon.expires_at": "the day its code ends, YYYY-MM-DD in the shop's time zone",
    "product.id": "the product of the triggering event",
    "unsubscribe_url": "the link with which this customer leaves the topic; marketing e-mail needs it",
}
"""What a text may use. The executor fills the same names."""

_REMOVED_TAGS = ("include", "render")
LONGEST_OUTPUT = 200_000


@cache
def _environment(escape: bool) -> Any:
    from liquid import Environment, Mode

    class Bounded(Environment):
        block_nesting_limit = 8
        context_depth_limit = 12
        loop_iteration_limit = 1_000
        local_namespace_limit = 100_000
        output_stream_limit = LONGEST_OUTPUT

    environment = Bounded(autoescape=escape, strict_filters=True, tolerance=Mode.STRICT)
    for tag in _REMOVED_TAGS:
        del environment.tags[tag]
    return environment


@lru_cache(maxsize=1024)
def _template(source: str, escape: bool) -> Any:
    return _environment(escape).from_string(source)


def variables(node: Node) -> set[str]:
    """The variables a text uses. Raises RuleError when it does not compile or names an unknown one."""
    from liquid.exceptions import LiquidError

    source = node.text(longest=100_000)
    try:
        analysis = _environment(False).from_string(source).analyze(include_partials=False)
    except (LiquidError, RecursionError) as error:
        raise node.fail(f"does not compile: {str(error).splitlines()[0] if str(error) else error}") from None
    strange = sorted(set(analysis.filters) - set(_environment(False).filters))
    if strange:
        raise node.fail(f"there is no filter {strange[0]!r}")
    used = {".".join(str(part) for part in one.segments) for found in analysis.globals.values() for one in found}
    unknown = sorted(used - set(VARIABLES))
    if unknown:
        raise node.fail(f"there is no variable {unknown[0]!r}; there are {', '.join(VARIABLES)}")
    return used


def render_line(source: str, context: Mapping[str, Any]) -> str:
    """One line of plain text (a subject): line breaks become spaces. Raises liquid's LiquidError beyond the limits."""
    return " ".join(_template(source, False).render(**context).split())


def render_html(source: str, context: Mapping[str, Any]) -> str:
    """HTML: values are escaped, so that a customer's name cannot become markup. Raises liquid's LiquidError."""
    return str(_template(source, True).render(**context))


def in_language(texts: Mapping[str, str] | str, locale: str | None, fallback: str = "en") -> str:
    """The text for a locale such as 'zh-CN' or 'en_GB'; without one of its language, the fallback's."""
    if isinstance(texts, str):
        return texts
    language = (locale or "").replace("_", "-").split("-")[0].lower()
    return texts.get(language) or texts.get(fallback) or next(iter(texts.values()))
