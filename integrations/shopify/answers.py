"""What an answer of the Admin API says: data, or which error. Nothing here calls anybody.

GraphQL's errors come with HTTP 200 beside the data; `extensions.code` tells them apart. Forms and codes:
https://shopify.dev/docs/api/admin-graphql#status_and_error_codes and https://shopify.dev/docs/api/usage/rate-limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import orjson

from integrations import http

from .errors import Malformed, ScopeMissing, ShopUnavailable, Throttled, Unauthorized, Uncertain, UserError, UserErrors

A_WHILE = timedelta(minutes=10)
"""After which a shop that was frozen or has moved is asked again."""
_UNTOLD_WAIT = timedelta(seconds=2)
_SCOPE = re.compile(r"\b(?:(?:unauthenticated|customer)_)?(?:read|write)_[a-z][a-z0-9_]*\b")

_TROUBLE = re.compile(r"internal error|went wrong|timed? ?out|try again", re.IGNORECASE)
"""Of errors without a code: theirs, and not of the request."""


@dataclass(frozen=True, slots=True)
class Cost:
    """`extensions.cost`, in points. `restore_rate` is points a second."""

    requested: float
    maximum: float
    available: float
    restore_rate: float

    def wait(self) -> timedelta:
        """How long until the bucket holds what was asked for (rate-limits page, "calculated query costs")."""
        missing = min(self.requested, self.maximum) - self.available
        return timedelta(seconds=max(0.0, missing / self.restore_rate))


@dataclass(frozen=True, slots=True)
class Answer:
    """`errors` are GraphQL's top-level ones; with them `data` may hold a part of what was asked, or nothing."""

    data: dict[str, Any] | None
    errors: tuple[Mapping[str, Any], ...] = ()
    cost: Cost | None = None


def body_of(response: httpx.Response) -> dict[str, Any] | None:
    """The JSON object of an answer, None when it is none."""
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def cost_of(body: Mapping[str, Any] | None) -> Cost | None:
    """What the call cost, told by a refusal too."""
    try:
        told = (body or {})["extensions"]["cost"]
        status = told["throttleStatus"]
        cost = Cost(
            float(told.get("requestedQueryCost") or 0),
            float(status["maximumAvailable"]),
            float(status["currentlyAvailable"]),
            float(status["restoreRate"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return cost if cost.restore_rate > 0 and cost.maximum > 0 else None


def read(response: httpx.Response, body: Mapping[str, Any] | None, cost: Cost | None) -> Answer:
    """Raises what the status or an unreadable body means; Uncertain where a change may have been made."""
    _check_status(response, cost)
    if body is None:
        raise Uncertain(f"the answer is not JSON: {_told(response)}")
    data, errors = body.get("data"), body.get("errors")
    if not isinstance(data, dict) and not errors:
        raise Uncertain(f"the answer has no data: {_told(response)}")
    return Answer(data if isinstance(data, dict) else None, _listed(errors), cost)


def payload_of(answer: Answer) -> dict[str, Any]:
    """The payload of the one mutation. Raises UserErrors for what it refused; Uncertain when it ran and does not tell.

    An error below the mutation's own field is one of reading its result: the change itself was made. A document that
    was refused before it ran has no data at all (and paths of another kind).
    """
    payload = next(iter(answer.data.values()), None) if answer.data else None
    if isinstance(payload, Mapping):
        refused = payload.get("userErrors") or payload.get("mediaUserErrors")
        if refused:
            raise UserErrors([_user_error(one) for one in refused])
    if answer.errors:
        below = answer.data is not None and any(len(error.get("path") or ()) > 1 for error in answer.errors)
        if payload is not None or below:
            raise Uncertain(f"the change ran, but its result cannot be read: {_messages(answer.errors)}")
        raise_errors(answer)
    if not isinstance(payload, Mapping):
        raise Uncertain("the answer does not say what became of the change")
    return dict(payload)


def raise_errors(answer: Answer) -> None:
    """What GraphQL's errors mean. Of several the one that decides what to do comes first."""
    codes = {_code(error) for error in answer.errors}
    told = _messages(answer.errors)
    if "THROTTLED" in codes:
        raise Throttled(told, retry_after=answer.cost.wait() if answer.cost else _UNTOLD_WAIT)
    if "ACCESS_DENIED" in codes:
        denied = [error for error in answer.errors if _code(error) == "ACCESS_DENIED"]
        raise ScopeMissing(told, scopes=_scopes(denied))
    if "SHOP_INACTIVE" in codes:
        raise ShopUnavailable(told, retry_after=A_WHILE)
    if codes & {"INTERNAL_SERVER_ERROR", "TIMEOUT"} or (codes == {None} and _TROUBLE.search(told)):
        raise Uncertain(told)
    raise Malformed(told)


def _check_status(response: httpx.Response, cost: Cost | None) -> None:
    status, told = response.status_code, _told(response)
    if status == 401:
        raise Unauthorized(told)
    if status == 403:
        raise ScopeMissing(told, scopes=_scopes([{"message": response.text[:2000]}]))
    if status in (402, 404, 423):
        raise ShopUnavailable(told, retry_after=A_WHILE)
    if status in (429, 430):
        computed = cost.wait() if cost else None
        raise Throttled(told, retry_after=http.retry_after(response) or computed or _UNTOLD_WAIT)
    if 300 <= status < 400:  # not followed: a redirected POST is another request, and the token goes to one host only
        moved = response.headers.get("Location", "")[:200]
        raise ShopUnavailable(f"Shopify says the shop is at {moved}; set base_url to that host", retry_after=A_WHILE)
    if status >= 500 or status in (408, 499) or status < 200:
        raise Uncertain(told)
    if status >= 400:
        raise Malformed(told)


def _told(response: httpx.Response) -> str:
    request = response.headers.get("X-Request-Id", "")
    return f"HTTP {response.status_code}{f' ({request[:80]})' if request else ''}: {response.text[:300]}"


def _listed(errors: Any) -> tuple[Mapping[str, Any], ...]:
    """Errors as objects; a bare text, or a list of them, is an error too."""
    if not errors:
        return ()
    every = errors if isinstance(errors, list) else [errors]
    return tuple(error if isinstance(error, dict) else {"message": str(error)} for error in every)


def _code(error: Mapping[str, Any]) -> str | None:
    extensions = error.get("extensions")
    code = extensions.get("code") if isinstance(extensions, Mapping) else None
    if code is None and error.get("message") == "Throttled":  # before 2020 it came without a code
        return "THROTTLED"
    return str(code) if code is not None else None


def _messages(errors: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(str(error.get("message")) for error in errors)[:500]


def _scopes(errors: Iterable[Mapping[str, Any]]) -> list[str]:
    """`read_orders` of "Required access: `read_orders` access scope"."""
    said: list[str] = []
    for error in errors:
        extensions = error.get("extensions")
        required = extensions.get("requiredAccess", "") if isinstance(extensions, Mapping) else ""
        said += _SCOPE.findall(f"{required} {error.get('message', '')}")
    return list(dict.fromkeys(said))


def _user_error(one: Mapping[str, Any]) -> UserError:
    return UserError(tuple(str(part) for part in one.get("field") or ()), one.get("code"), str(one.get("message")))
