"""Rules in their plain form, as spreadsheets and other tools keep them, read as strategies.

    {"rule_id": "R-1", "name": "决策期优惠", "priority": 1, "enabled": true,
     "conditions": {"purchase_stage": "决策阶段", "price_sensitivity": "高", "engagement_level": ["中", "高"]},
     "actions": [{"type": "send_email", "template": "discount_offer", "delay_minutes": 30},
                 {"type": "create_discount", "discount": 0.1, "expiry_days": 7}]}

What the form leaves unsaid is decided here, once:

- All conditions must hold; of several values of one, any. Of rules, the one of the highest `priority` is asked first.
- It has no trigger: the rule is asked whenever a customer does something that may bring the conditions about
  (WHENEVER), and every morning where time alone may (BY_TIME). A customer enters again after COOLDOWN at the earliest.
- `delay_minutes` counts from the trigger, for each action on its own; without it an action is due at once. Of actions
  due at one moment discounts come first. An e-mail that shows a code needs a discount that is due no later.
- `discount` below 1 is a share, from 1 on percent; "10%" and "9折" say the same.
- An order calls off what has not been sent. The holdout is the usual one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from . import duration, message, strategy
from .fields import FieldType, Vocabulary, lookup
from .message import Messages
from .strategy import Strategy
from .tree import LANGUAGES, Node, unique

WHENEVER = ("product.viewed", "product.searched", "cart.added", "checkout.started", "order.paid", "email.clicked")
BY_TIME = {"purchase_stage": {"lapsed"}, "engagement_level": {"none"}}
"""Values that come about by nothing being done."""
MORNING = "0 9 * * *"
COOLDOWN = timedelta(days=30)
EXPIRY_DAYS = 14

TYPES = ("send_email", "create_discount")
_GOALS = {"lapsed": "win_back", "customer": "retention", "repeat": "repurchase"}
_PRIORITIES = {"high": 30, "medium": 20, "low": 10, "高": 30, "中": 20, "低": 10}
_SUFFIXES = ("阶段", "客户", "期", "型", "_stage")
_LONGEST_DELAY = 366 * 24 * 60

Read = tuple[Strategy, bool]


def is_plain(raw: Any) -> bool:
    """Whether this is a rule of the plain form, or a list of them."""
    if isinstance(raw, list):
        return bool(raw) and all(is_plain(one) for one in raw)
    return isinstance(raw, dict) and "rule_id" in raw


def read(raw: Any, vocabulary: Vocabulary, messages: Messages) -> Read:
    """One rule as a strategy, and whether it is enabled. Raises RuleError, naming the path at fault."""
    return _read(Node(raw), vocabulary, messages)


def read_all(raw: Any, vocabulary: Vocabulary, messages: Messages) -> list[Read]:
    """A list of rules (or one alone), each a strategy of its own. Raises RuleError."""
    nodes = Node(raw).items("rules") if isinstance(raw, list) else [Node(raw)]
    found = [_read(node, vocabulary, messages) for node in nodes]
    unique(((node.need("rule_id"), made.key) for node, (made, _) in zip(nodes, found, strict=True)), "rule")
    return found


def _read(node: Node, vocabulary: Vocabulary, messages: Messages) -> Read:
    node.mapping("rule_id", "name", "conditions", "actions", "priority", "enabled")
    key, name = _key(node.need("rule_id")), _name(node)
    asked = _conditions(node.need("conditions"), vocabulary)
    enabled = node.get("enabled")
    written = {
        "key": key,
        "name": name,
        "goal": _goal(asked),
        "why": {language: f"{name[language]} ({node.value['rule_id']})" for language in LANGUAGES},
        "rules": [
            {
                "key": key,
                "name": name,
                "priority": _priority(node.get("priority")),
                "when": _when(asked),
                "if": {"all": [_leaf(field, values) for field, values in asked.items()]},
                "then": {"arms": [{"key": "actions", "weight": 1, "steps": _steps(node.need("actions"), messages)}]},
                "exit_on": ["order.paid"],
            }
        ],
    }
    return strategy.parse(written, vocabulary), enabled.flag() if enabled else True


def _key(node: Node) -> str:
    """`rule_id` as a key: R-1 as "r-1"; of what has no Latin letters, a name made of its content."""
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        node = Node(str(node.value), node.path)
    written = node.text(longest=200).strip()
    slug = re.sub(r"[^a-z0-9_.]+", "-", written.lower()).strip("-.")
    if not re.sub(r"[^a-z0-9]", "", slug):
        return f"rule-{hashlib.sha256(written.encode()).hexdigest()[:12]}"
    return (slug if slug[0].isalpha() else f"rule-{slug}")[:63]


def _name(node: Node) -> dict[str, str]:
    """In one language it stands for both."""
    name = node.get("name")
    if name is None:
        return dict.fromkeys(LANGUAGES, str(node.value["rule_id"]))
    if isinstance(name.value, dict):
        return name.languages(longest=200)
    return dict.fromkeys(LANGUAGES, name.text(longest=200))


def _priority(node: Node | None) -> int:
    if node is None:
        return 0
    if isinstance(node.value, str) and node.value.strip().lower() in _PRIORITIES:
        return _PRIORITIES[node.value.strip().lower()]
    return node.whole(low=-1000, high=1000)


# -- conditions -------------------------------------------------------------------------------------------------------

Asked = dict[str, list[Any]]


def _conditions(node: Node, vocabulary: Vocabulary) -> Asked:
    children = node.mapping()
    if not children:
        raise node.fail("is empty; a rule for everybody has to say so by a condition")
    asked: Asked = {}
    for name, child in children.items():
        field, kind = _field(child, name, vocabulary)
        if field in asked:
            raise child.fail(f"{field} is asked for twice")
        listed = child.items("values") if isinstance(child.value, list) else [child]
        values = [_value(one, kind) for one in listed]
        unique(zip(listed, map(str, values), strict=True), "value")
        asked[field] = values
    return asked


def _field(node: Node, name: str, vocabulary: Vocabulary) -> tuple[str, FieldType]:
    for field in (vocabulary.aliases.get(name, name), f"customer.{name}"):
        kind = lookup(vocabulary.fields, field)
        if kind is not None and not field.startswith("event."):
            return field, kind
    known = [field.removeprefix("customer.") for field in vocabulary.fields if field.startswith("customer.")]
    raise node.fail(f"there is no condition {name[:40]!r}; there are {', '.join(sorted(known))}")


def _value(node: Node, kind: FieldType) -> Any:
    """A value in its canonical form: 决策期 and "Decision" as `decision`."""
    if not isinstance(node.value, str) or kind.values is None:
        return node.value
    written = node.value.strip()
    known: Mapping[str, str] = {**{value: value for value in kind.values}, **kind.synonyms}
    folded = {text.lower(): value for text, value in known.items()}
    for shape in _shapes(written):
        if shape in folded:
            return folded[shape]
    raise node.fail(f"{written[:40]!r} is not one of {', '.join(sorted(kind.values))}")


def _shapes(written: str) -> list[str]:
    lower = written.lower()
    forms = [lower, lower.replace("-", "_").replace(" ", "_"), lower.replace("_", " ").replace("-", " ")]
    return forms + [form.removesuffix(suffix) for form in forms for suffix in _SUFFIXES if form.endswith(suffix)]


def _leaf(field: str, values: list[Any]) -> dict[str, Any]:
    if len(values) == 1:
        return {"field": field, "op": "equals", "value": values[0]}
    return {"field": field, "op": "in", "value": values}


def _goal(asked: Asked) -> str:
    stages = asked.get("customer.purchase_stage", [])
    return _GOALS.get(str(stages[0]), "conversion") if len(stages) == 1 else "conversion"


def _when(asked: Asked) -> dict[str, Any]:
    comes_by_time = any(values & set(map(str, asked.get(f"customer.{name}", []))) for name, values in BY_TIME.items())
    source = {"schedule": MORNING} if comes_by_time else {"event": list(WHENEVER)}
    return {**source, "frequency": "every_time", "cooldown": duration.write(COOLDOWN)}


# -- actions ----------------------------------------------------------------------------------------------------------


def _steps(node: Node, messages: Messages) -> list[dict[str, Any]]:
    """The actions in the order in which they are due, each with its delay after the one before."""
    steps: list[dict[str, Any]] = []
    passed, has_coupon = 0, False
    for one in sorted(node.items("actions"), key=_order):
        due, kind = _due(one), _type(one)
        if kind == "create_discount":
            step, has_coupon = _coupon(one), True
        else:
            found = message.find(one.need("template"), messages)
            if found.needs_coupon and not has_coupon:
                raise one.need("template").fail("shows a code; add a create_discount that is due no later than it")
            step = found.step
        steps.append({**step, **({"delay": duration.write(timedelta(minutes=due - passed))} if due > passed else {})})
        passed = due
    return steps


def _order(node: Node) -> tuple[int, bool]:
    """By time; of those due at one moment, discounts first. Sorting keeps the rest as written."""
    return _due(node), _type(node) == "send_email"


def _type(node: Node) -> str:
    node.mapping()
    kind = node.need("type").choice(TYPES)
    node.mapping("type", "delay_minutes", *(("template",) if kind == "send_email" else ("discount", "expiry_days")))
    return kind


def _due(node: Node) -> int:
    node.mapping()
    minutes = node.get("delay_minutes")
    return minutes.whole(low=0, high=_LONGEST_DELAY) if minutes else 0


def _coupon(node: Node) -> dict[str, Any]:
    days = node.get("expiry_days")
    valid = timedelta(days=days.whole(low=1, high=366) if days else EXPIRY_DAYS)
    return {"action": "coupon", "percent": _percent(node.need("discount")), "expires_in": duration.write(valid)}


def _percent(node: Node) -> float:
    """10, 0.1, "10%" and "9折" are one tenth off."""
    written = node.value
    if isinstance(written, str):
        found = re.fullmatch(r"\s*([0-9]{1,2}(?:\.[0-9]{1,2})?)\s*(%|％|折)?\s*", written)
        if found is None:
            raise node.fail(f'{written[:40]!r} is not a discount: 10, 0.1, "10%" or "9折"')
        number, unit = float(found[1]), found[2]
        if unit == "折" and not 0 < number < 10:
            raise node.fail("a 折 lies between 0 and 10")
        percent = 100 - number * 10 if unit == "折" else number if unit else _as_percent(number)
    else:
        percent = _as_percent(float(node.number()))
    return Node(round(percent, 4), node.path).number(low=0.01, high=100)


def _as_percent(number: float) -> float:
    return number * 100 if 0 < number < 1 else number
