"""One field of a webhook's body at a time: read strictly, or refused by its path.

What money, people or the order of things hang on must have its type; of texts that only describe, a wrong type is as
good as none. Nothing here raises anything but Rejected, whatever the body.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from operation_agent.kit.errors import Rejected
from operation_agent.kit.money import minor_digits, to_minor

Body = dict[str, Any]

LONGEST_ID = 255
LONGEST_TEXT = 1_000
MOST_PIECES = 1_000_000
"""Of one line: above this a quantity is a mistake. As for every other event with products."""
_ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,253}\.[^@\s.]{2,63}")
_E164 = re.compile(r"\+[1-9][0-9]{7,14}", re.ASCII)
_GID = re.compile(r"gid://shopify/(\w+)/([^/?\s]+)(\?.*)?", re.ASCII)


def identifier(body: Body, name: str) -> str:
    """An id as text, exact beyond 2^53. Raises Rejected when it is missing or cannot be one."""
    found = optional_identifier(body, name)
    if found is None:
        raise Rejected(f"`{name}` is missing", code="field_missing", where=name)
    return found


def optional_identifier(body: Body, name: str) -> str | None:
    value = body.get(name)
    if type(value) is int and value >= 0:
        return str(value)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_ID:
        raise Rejected(f"`{name}` is an id, not {_shown(value)}", code="field_type", where=name)
    return value


def global_id(body: Body, name: str, *kinds: str) -> tuple[str, str]:
    """(kind, id) of `gid://shopify/<kind>/<id>`; of one of `kinds`. Raises Rejected."""
    value = body.get(name)
    found = _GID.fullmatch(value) if isinstance(value, str) and len(value) <= LONGEST_ID else None
    if found is None or (kinds and found[1] not in kinds):
        expected = " or ".join(kinds) or "a thing"
        raise Rejected(f"`{name}` is the global id of {expected}, not {_shown(value)}", code="field_type", where=name)
    return found[1], found[2]


def instant(body: Body, *names: str) -> datetime:
    """The first of `names` that is there, UTC, whole seconds. Raises Rejected."""
    for name in names:
        found = optional_instant(body, name)
        if found is not None:
            return found
    raise Rejected(f"`{names[0]}` is missing", code="field_missing", where=names[0])


def optional_instant(body: Body, name: str) -> datetime | None:
    written = body.get(name)
    if written is None or written == "":
        return None
    if isinstance(written, str):
        try:
            found = datetime.fromisoformat(written)
            return (found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)).replace(microsecond=0)
        except (ValueError, OverflowError):
            pass
    raise Rejected(f"`{name}` is not an ISO 8601 time: {_shown(written)}", code="field_type", where=name)


def text(body: Body, name: str) -> str | None:
    """A text that describes: cut where it is too long, None for anything else."""
    value = body.get(name)
    return value[:LONGEST_TEXT] if isinstance(value, str) and value else None


def token(body: Body, name: str) -> str | None:
    """A text that names something else, such as the token of a cart. Raises Rejected for what cannot be one."""
    return optional_identifier(body, name)


def flag(body: Body, name: str) -> bool:
    """False when absent. Raises Rejected for what is neither true nor false."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Rejected(f"`{name}` is true or false, not {_shown(value)}", code="field_type", where=name)
    return value


def whole(body: Body, name: str, *, most: int = MOST_PIECES) -> int:
    """A number of pieces from 0 to `most`; 0 when absent. Raises Rejected."""
    found = optional_whole(body, name, least=0, most=most)
    return found or 0


def optional_whole(body: Body, name: str, *, least: int = -(2**31), most: int = 2**31 - 1) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not least <= value <= most:
        raise Rejected(
            f"`{name}` is a whole number from {least} to {most}, not {_shown(value)}", code="field_type", where=name
        )
    return value


def objects(body: Body, name: str) -> list[Body]:
    """A list of objects; empty when absent. Raises Rejected."""
    listed = body.get(name)
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise Rejected(f"`{name}` is a list of objects", code="field_type", where=name)
    return listed


def optional_object(body: Body, name: str) -> Body | None:
    found = body.get(name)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise Rejected(f"`{name}` is an object, not {_shown(found)}", code="field_type", where=name)
    return found


def texts(body: Body, name: str) -> list[str]:
    """A list of texts, or one text with commas between them, as Shopify writes tags. Raises Rejected."""
    listed = body.get(name)
    if listed is None:
        return []
    if isinstance(listed, str):
        listed = listed.split(",")
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise Rejected(f"`{name}` is a list of texts", code="field_type", where=name)
    return list(dict.fromkeys(one.strip()[:LONGEST_ID] for one in listed if one.strip()))


# -- money ---------------------------------------------------------------------------------------------------------


def money(body: Body, name: str, currency: str) -> int:
    """Minor units of `<name>_set.shop_money`, or of the plain amount, which older versions give in the shop's currency;
    0 when neither is there. Raises Rejected, in another currency than the shop's too."""
    return optional_money(body, name, currency) or 0


def optional_money(body: Body, name: str, currency: str) -> int | None:
    both = body.get(f"{name}_set")
    if isinstance(both, dict):
        shop_money = both.get("shop_money")
        if isinstance(shop_money, dict):
            return _shop_money(shop_money, f"{name}_set.shop_money", currency)
    if both is not None:
        raise Rejected(f"`{name}_set` has no amount in the shop's money", code="field_type", where=f"{name}_set")
    plain = body.get(name)
    return None if plain is None else minor(plain, currency, name)


def _shop_money(said: Body, where: str, currency: str) -> int:
    if said.get("currency_code") != currency:
        raise mixed_currency(said.get("currency_code"), currency, where)
    return minor(said.get("amount"), currency, where)


def positive(amount: int, where: str) -> int:
    if amount < 0:
        raise Rejected(f"`{where}` is negative", code="amount", where=where)
    return amount


def minor(amount: object, currency: str, where: str) -> int:
    """As kit.money.to_minor, several times faster for amounts as Shopify writes them ("12.50")."""
    if type(amount) is str and amount.isascii():
        units, _, fraction = amount.partition(".")
        if len(fraction) == minor_digits(currency) and 0 < len(units) < 13 and (units + fraction).isdecimal():
            return int(units + fraction)
    try:
        return to_minor(amount, currency)
    except Rejected as error:
        raise Rejected(error.detail, code=error.code, where=where) from None


def mixed_currency(said: object, currency: str, where: str) -> Rejected:
    return Rejected(
        f"the amount is in {_shown(said)} and the shop's currency is {currency}", code="mixed_currency", where=where
    )


# -- people --------------------------------------------------------------------------------------------------------


def email(value: object) -> str | None:
    """The address in lower case, or None for what is not one."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        return None
    address = value.strip().lower()
    return address if _ADDRESS.fullmatch(address) else None


def phone(value: object) -> str | None:
    """E.164, or None for what is not a possible number with its country's code. Shopify's own form needs no look."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    if _E164.fullmatch(value):
        return value
    if not value.lstrip().startswith("+"):
        return None
    import phonenumbers

    try:
        number = phonenumbers.parse(value)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _shown(value: object) -> str:
    return repr(value)[:60].encode("ascii", "backslashreplace").decode()
