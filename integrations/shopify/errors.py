"""What can go wrong with a call to Shopify, split by what the caller does about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from operation_agent.kit.errors import AgentError, Denied, Rejected, Retryable


class Throttled(Retryable):
    """Refused for its cost: nothing was done. `retry_after` is when the bucket holds enough again."""

    code = "throttled"


class Unreachable(Retryable):
    """Nothing was done: it never left, or Shopify said so, or it only read."""

    code = "unreachable"


class ShopUnavailable(Retryable):
    """The shop is frozen, locked or has moved: nothing was done, and nothing will be for a while."""

    code = "shop_unavailable"


class Uncertain(AgentError):
    """A time-out, reset or 5xx after a change had left: it may have been made. Look before trying again."""

    code = "uncertain"


class Oversized(Uncertain):
    """The answer is larger than we read: of a query, ask for fewer at once."""


class Unauthorized(Denied):
    """The token is wrong, expired or revoked: nothing will work until somebody connects the shop again."""

    code = "unauthorized"


class ScopeMissing(Denied):
    """The app was not granted what this needs: `scopes`, as far as Shopify names them."""

    code = "scope_missing"

    def __init__(self, detail: str, *, scopes: Sequence[str] = ()):
        super().__init__(detail, scopes=list(scopes))
        self.scopes = tuple(scopes)


class Malformed(Rejected):
    """Shopify does not understand the request, or never allows it: a mistake of ours, or another API version."""

    code = "malformed"


@dataclass(frozen=True, slots=True)
class UserError:
    """`field` is the path of the input at fault, `code` Shopify's own word for it."""

    field: tuple[str, ...]
    code: str | None
    message: str


class UserErrors(Rejected):
    """Shopify understood the change and refused it: nothing was done."""

    code = "user_errors"

    def __init__(self, errors: Sequence[UserError]):
        told = "; ".join(f"{'.'.join(error.field) or 'input'}: {error.message}" for error in errors)
        super().__init__(told[:500], where=".".join(errors[0].field) or None if errors else None)
        self.errors = tuple(errors)

    def has(self, *codes: str) -> bool:
        return any(error.code in codes for error in self.errors)
