"""Money is integer minor units and an ISO 4217 code; amounts from outside are decimal strings or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from functools import cache

from .errors import Rejected

MAXIMUM_MINOR = 10**15
"""Ten trillion dollars: above this an amount is a mistake, and bigint arithmetic on sums stays safe."""


@cache
def minor_digits(currency: str) -> int:
    """Digits after the decimal point in `currency` (CLDR): USD 2, JPY 0, KWD 3.

    Raises Rejected for a code that CLDR does not know.
    """
    from babel.core import get_global

    if currency not in get_global("all_currencies"):
        raise Rejected(f"{currency!r} is not an ISO 4217 currency code such as USD or CNY", code="currency")
    fractions = get_global("currency_fractions")
    return int(fractions.get(currency, fractions["DEFAULT"])[0])


def to_minor(amount: object, currency: str) -> int:
    """Minor units of a decimal amount ('12.30' USD -> 1230), rounded half to even.

    Raises Rejected when it is not a finite number, or larger than MAXIMUM_MINOR.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise Rejected(f"an amount is a number or a decimal string, not {type(amount).__name__}", code="amount")
    digits = minor_digits(currency)
    try:
        value = Decimal(str(amount))
        if not value.is_finite() or abs(value.adjusted()) > 20:
            raise InvalidOperation
        minor = int((value * 10**digits).to_integral_value(ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError):
        raise Rejected(f"{str(amount)[:40]!r} is not an amount of money", code="amount") from None
    if abs(minor) > MAXIMUM_MINOR:
        raise Rejected(f"{str(amount)[:40]!r} is too large to be an amount of money", code="amount")
    return minor


@dataclass(frozen=True, slots=True)
class Money:
    minor: int
    currency: str

    def decimal(self) -> Decimal:
        return Decimal(self.minor).scaleb(-minor_digits(self.currency))

    def __str__(self) -> str:
        return f"{self.decimal()} {self.currency}"
