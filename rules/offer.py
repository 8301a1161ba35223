"""What a coupon step offers: a percentage, an amount, free shipping, or some more for what is bought.

    {action: coupon, percent: 10}
    {action: coupon, amount: 5, minimum_subtotal: 40, offer: spring}
    {action: coupon, free_shipping: true, worth: 6}
    {action: coupon, buy_x_get_y: {buy: {quantity: 2, products: [632]}, get: {quantity: 1, products: [632]}}, worth: 9}

Money is written in units of the shop's currency. What one use may cost is told by `value`: of a percentage a share of
the order, of an amount that amount; of the rest what `worth` says, since only the operator knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from . import duration
from .tree import Node

Kind = Literal["percent", "amount", "free_shipping", "buy_x_get_y"]
KINDS: tuple[Kind, ...] = ("percent", "amount", "free_shipping", "buy_x_get_y")
CLASSES = ("order", "product", "shipping")
ELIGIBLE = ("everyone", "customer")
DEFAULT_EXPIRY = "P14D"

TERMS = (
    *KINDS, "minimum_subtotal", "minimum_quantity", "products", "collections", "maximum_shipping", "usage_limit",
    "once_per_customer", "combines_with", "eligible", "customer_segments",
)  # fmt: skip
"""What a shop system must be told of a discount. The other keys are between the rule and the agent."""
KEYS = (*TERMS, "expires_in", "offer", "pool", "worth")

TYPICAL_ORDER = 50
TYPICAL_SHIPPING = 10
"""Units of the shop's currency: the order assumed of somebody who has not ordered yet, and what sending it costs, in a
shop whose settings say neither `typical_order_minor` nor `free_shipping_minor`."""
_MOST_ITEMS = 100
_MOST_USES = 1_000_000


# -- reading ----------------------------------------------------------------------------------------------------------


def read(node: Node) -> dict[str, Any]:
    """The parameters of a coupon step, in the form they are kept in. Raises RuleError, naming the path at fault."""
    expires, offer, pool = node.get("expires_in"), node.get("offer"), node.get("pool")
    terms = read_terms(node)
    kind = kind_of(terms)
    found: dict[str, Any] = {
        **({"percent": terms.pop("percent")} if kind == "percent" else {}),
        "expires_in": duration.write(expires.duration()) if expires else DEFAULT_EXPIRY,
        **terms,
    }
    if offer is not None:
        found["offer"] = offer.key()
    if pool is not None:
        _check_pool(node, pool)
        found["pool"] = pool.key()
    return found | _worth(node, kind)


def read_terms(node: Node) -> dict[str, Any]:
    """What a discount gives, to whom and when, without what else a step says. Raises RuleError."""
    given = [kind for kind in KINDS if node.get(kind) is not None]
    if len(given) != 1:
        named = f", not {' and '.join(given)}" if given else ""
        raise node.fail(f"a coupon gives one of {', '.join(KINDS)}{named}")
    kind: Kind = given[0]
    terms: dict[str, Any] = {kind: _GIVEN[kind](node.need(kind))}
    _refuse(node, kind)
    return terms | _conditions(node) | _uses(node, kind)


def _percent(node: Node) -> Any:
    return node.number(low=0.01, high=100)


def _amount(node: Node) -> str:
    found = money(node)
    if not found:
        raise node.fail("an amount of nothing is no offer")
    return str(found)


def _free_shipping(node: Node) -> bool:
    if not node.flag():
        raise node.fail("`free_shipping: true` gives it; otherwise leave it out")
    return True


def _buy_x_get_y(node: Node) -> dict[str, Any]:
    node.mapping("buy", "get")
    buy, get = node.need("buy"), node.need("get")
    buy.mapping("quantity", "products", "collections")
    get.mapping("quantity", "products", "collections", "percent")
    percent = get.get("percent")
    return {
        "buy": {"quantity": buy.need("quantity").whole(low=1, high=10_000), **_items(buy, needed=True)},
        "get": {
            "quantity": get.need("quantity").whole(low=1, high=10_000),
            **_items(get, needed=True),
            "percent": percent.number(low=0.01, high=100) if percent else 100,
        },
    }


_GIVEN: Mapping[Kind, Callable[[Node], Any]] = {
    "percent": _percent,
    "amount": _amount,
    "free_shipping": _free_shipping,
    "buy_x_get_y": _buy_x_get_y,
}

_ONLY_FOR: Mapping[str, tuple[Kind, ...]] = {
    "products": ("percent", "amount"),
    "collections": ("percent", "amount"),
    "minimum_subtotal": ("percent", "amount", "free_shipping"),
    "minimum_quantity": ("percent", "amount", "free_shipping"),
    "maximum_shipping": ("free_shipping",),
}


def _refuse(node: Node, kind: Kind) -> None:
    for key, kinds in _ONLY_FOR.items():
        child = node.get(key)
        if child is not None and kind not in kinds:
            raise child.fail(f"goes with {', '.join(kinds)} only, not with {kind}")


def _conditions(node: Node) -> dict[str, Any]:
    subtotal, quantity, most = (node.get(f"{name}") for name in ("minimum_subtotal", "minimum_quantity",
                                                                 "maximum_shipping"))  # fmt: skip
    if subtotal is not None and quantity is not None:
        raise quantity.fail("give either `minimum_subtotal` or `minimum_quantity`: a discount has one minimum")
    found: dict[str, Any] = {}
    if subtotal is not None:
        found["minimum_subtotal"] = _amount(subtotal)
    if quantity is not None:
        found["minimum_quantity"] = quantity.whole(low=1, high=10_000)
    found |= _items(node)
    if most is not None:
        found["maximum_shipping"] = _amount(most)
    return found


def _items(node: Node, *, needed: bool = False) -> dict[str, list[str]]:
    products, collections = node.get("products"), node.get("collections")
    if products is not None and collections is not None:
        raise collections.fail("give either `products` or `collections`")
    if products is None and collections is None:
        if needed:
            raise node.fail("say which `products` or `collections`")
        return {}
    name, listed = ("products", products) if products is not None else ("collections", collections)
    assert listed is not None
    items = listed.items(name)
    if len(items) > _MOST_ITEMS:
        raise listed.fail(f"at most {_MOST_ITEMS} {name}")
    return {name: [_id(one) for one in items]}


def _id(node: Node) -> str:
    """Of something at the shop; as a number too."""
    if isinstance(node.value, int) and not isinstance(node.value, bool) and node.value > 0:
        return str(node.value)
    return node.text(longest=200)


def _uses(node: Node, kind: Kind) -> dict[str, Any]:
    limit, once, combines = node.get("usage_limit"), node.get("once_per_customer"), node.get("combines_with")
    eligible, segments = node.get("eligible"), node.get("customer_segments")
    found: dict[str, Any] = {}
    if limit is not None and (number := limit.whole(low=1, high=_MOST_USES)) != 1:
        found["usage_limit"] = number
    if once is not None and not once.flag():
        found["once_per_customer"] = False
    if combines is not None and combines.value != []:
        found["combines_with"] = _classes(combines, kind)
    if eligible is not None and eligible.choice(ELIGIBLE) != ELIGIBLE[0]:
        if segments is not None:
            raise segments.fail("the code is for this customer alone already")
        found["eligible"] = eligible.value
    if segments is not None:
        found["customer_segments"] = [_id(one) for one in segments.items("customer segments")]
    return found


def _classes(node: Node, kind: Kind) -> list[str]:
    listed = node.items("kinds of discounts")
    named = {one.choice(CLASSES) for one in listed}
    if kind == "free_shipping" and "shipping" in named:
        raise node.fail("free shipping does not combine with other discounts on shipping")
    return [one for one in CLASSES if one in named]


def _check_pool(node: Node, pool: Node) -> None:
    for key in ("offer", "eligible"):
        child = node.get(key)
        if child is not None:
            raise child.fail("does not go with `pool`: its codes were made ahead, one for each customer")
    if pool.value == "":
        raise pool.fail("name a code pool")


def _worth(node: Node, kind: Kind) -> dict[str, str]:
    worth = node.get("worth")
    if worth is None:
        if kind == "buy_x_get_y":
            raise node.fail("needs `worth`: what using it is expected to cost, which a budget reserves")
        return {}
    if kind in ("percent", "amount"):
        raise worth.fail(f"what a coupon of kind {kind} costs is known; leave it out")
    return {"worth": _amount(worth)}


def money(node: Node) -> Decimal:
    """An amount in units of a currency, not negative. Raises RuleError."""
    if isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
        raise node.fail("an amount is wanted, such as 500 or '499.90'")
    try:
        found = Decimal(str(node.value))
    except InvalidOperation:
        raise node.fail(f"{str(node.value)[:40]!r} is not an amount") from None
    if not found.is_finite() or not 0 <= found <= 10**12:
        raise node.fail("an amount between 0 and a million million is wanted")
    return found


# -- what it is -------------------------------------------------------------------------------------------------------


def kind_of(parameters: Mapping[str, Any]) -> Kind:
    """Of what was read. Raises KeyError for what never was."""
    for kind in KINDS:
        if kind in parameters:
            return kind
    raise KeyError("kind")


def terms_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the shop system must be told, of a step's parameters."""
    return {key: parameters[key] for key in TERMS if key in parameters}


# -- what it costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prices:
    """What a shop's offers are measured by: `digits` of its currency, and minor units: an order, and sending one."""

    digits: int
    order_minor: float
    shipping_minor: float

    @classmethod
    def of(cls, settings: Mapping[str, Any], digits: int) -> Prices:
        """By the shop's settings `typical_order_minor` and `free_shipping_minor`."""
        order = float(settings.get("typical_order_minor") or TYPICAL_ORDER * 10**digits)
        return cls(digits, order, float(settings.get("free_shipping_minor") or TYPICAL_SHIPPING * 10**digits))


@dataclass(frozen=True, slots=True)
class Value:
    """What one use costs at most: `share` of the order, which is at least `least_minor`, and `fixed_minor`. `uses`: how
    often the code may be used in all."""

    share: float
    fixed_minor: float
    least_minor: float
    uses: int

    def depth(self, order_minor: float) -> float:
        """In percent of such an order, or of the least that it may be."""
        order = max(order_minor, self.least_minor)
        return 100 * (self.share + (self.fixed_minor / order if order else 0.0))


def value(parameters: Mapping[str, Any], prices: Prices) -> Value:
    """Of a step's parameters, of any kind."""
    least = _minor(parameters["minimum_subtotal"], prices) if "minimum_subtotal" in parameters else 0.0
    alone = parameters.get("eligible") == "customer" and parameters.get("once_per_customer", True)
    uses = 1 if alone else int(parameters.get("usage_limit", 1))
    kind = kind_of(parameters)
    if kind == "percent":
        return Value(float(parameters["percent"]) / 100, 0.0, least, uses)
    return Value(0.0, _fixed(kind, parameters, prices), least, uses)


def _fixed(kind: Kind, parameters: Mapping[str, Any], prices: Prices) -> float:
    if kind == "amount":
        return _minor(parameters["amount"], prices)
    told = parameters.get("worth") or parameters.get("maximum_shipping")
    return _minor(told, prices) if told is not None else prices.shipping_minor


def depth(parameters: Mapping[str, Any], prices: Prices) -> float:
    """How deep a discount is, in percent: of a percentage itself, of anything else what it costs of a typical order (of
    its minimum, where that is more)."""
    if "percent" in parameters:
        return float(parameters["percent"])
    return round(value(parameters, prices).depth(prices.order_minor), 4)


def _minor(amount: Any, prices: Prices) -> float:
    return float((Decimal(str(amount)) * 10**prices.digits).to_integral_value())


# -- in words ---------------------------------------------------------------------------------------------------------


def short(parameters: Mapping[str, Any], language: str) -> str:
    """What is given, as an operator would call it: "10 %", "5.00 off", "free shipping"."""
    kind = kind_of(parameters)
    if kind == "percent":
        return {"en": "{:g} %", "zh": "{:g}%"}[language].format(parameters["percent"])
    return _gift(kind, parameters, language, None)


def described(parameters: Mapping[str, Any], language: str, currency: str | None = None) -> str:
    """The offer as its customer reads it: "10% off orders of at least 40 USD". An unknown language is English."""
    language = language if language in _SENTENCE else "en"
    gift = _gift(kind_of(parameters), parameters, language, currency)
    conditions = list(_wanted(parameters, language, currency))
    return _SENTENCE[language].format(gift, _JOINT[language].join(conditions)) if conditions else gift


_SENTENCE = {"en": "{} ({})", "zh": "{}（{}）"}
_JOINT = {"en": "; ", "zh": "；"}


def _gift(kind: Kind, parameters: Mapping[str, Any], language: str, currency: str | None) -> str:
    if kind == "percent":
        return {"en": "{:g}% off", "zh": "优惠 {:g}%"}[language].format(parameters["percent"])
    if kind == "amount":
        return {"en": "{} off", "zh": "立减 {}"}[language].format(priced(parameters["amount"], currency))
    if kind == "free_shipping":
        return {"en": "free shipping", "zh": "免运费"}[language]
    bxgy = parameters["buy_x_get_y"]
    buy, get, percent = bxgy["buy"]["quantity"], bxgy["get"]["quantity"], bxgy["get"]["percent"]
    if percent == 100:
        return {"en": "buy {}, get {} free", "zh": "买 {} 赠 {}"}[language].format(buy, get)
    return {"en": "buy {}, get {} at {:g}% off", "zh": "买 {} 件，另 {} 件优惠 {:g}%"}[language].format(
        buy, get, percent
    )


def _wanted(parameters: Mapping[str, Any], language: str, currency: str | None) -> Iterator[str]:
    if "minimum_subtotal" in parameters:
        least = priced(parameters["minimum_subtotal"], currency)
        yield {"en": "for orders of at least {}", "zh": "满 {} 可用"}[language].format(least)
    if "minimum_quantity" in parameters:
        least = parameters["minimum_quantity"]
        yield {"en": "for at least {} items", "zh": "满 {} 件可用"}[language].format(least)
    if "products" in parameters or "collections" in parameters:
        yield {"en": "on selected products", "zh": "限指定商品"}[language]
    if "maximum_shipping" in parameters:
        most = priced(parameters["maximum_shipping"], currency)
        yield {"en": "for shipping of up to {}", "zh": "运费不超过 {}"}[language].format(most)


def priced(amount: Any, currency: str | None) -> str:
    """An amount as a text says it: "5.00 USD"."""
    return f"{amount} {currency}" if currency else str(amount)
