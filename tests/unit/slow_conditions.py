"""A slow interpreter of conditions, straight from their definition, with what Hypothesis draws to compare it with.

One row at a time, one node at a time, over plain Python values: instants are datetimes, whatever is missing is None.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rules import condition as conditions
from rules.condition import Change, Group, History, Leaf, Reference, Relative
from rules.evaluate import Labels
from rules.fields import FieldType, Vocabulary

AT = datetime(2026, 6, 1, tzinfo=UTC)
FIELDS = {
    "n.a": FieldType("number"),
    "n.b": FieldType("number"),
    "n.age": FieldType("number", unit="days"),
    "f.x": FieldType("flag", has_since=True, synonyms={"是": "true", "否": "false"}),
    "l.open": FieldType("label", has_since=True, synonyms={"高危": "at_risk"}),
    "l.closed": FieldType("label", frozenset({"low", "high"}), synonyms={"高": "high", "低": "low"}),
    "t.seen": FieldType("time"),
    "s.codes": FieldType("list"),
    "trait.*": FieldType("any"),
    "event.*": FieldType("any"),
    "event.product_id": FieldType("label"),
    "event.total_minor": FieldType("number"),
}
VOCABULARY = Vocabulary(
    FIELDS,
    {
        "product.viewed": frozenset({"product_id"}),
        "order.paid": frozenset({"total_minor"}),
        "custom": frozenset({"*"}),
    },
    {"数量": "n.a", "风险": "l.open"},
)


def slow(node: conditions.Condition, row: dict[str, Any]) -> bool | None:
    """True, False, or None: unknown."""
    if isinstance(node, Group):
        found = [slow(child, row) for child in node.children]
        if node.kind == "all":
            return slow_all(found)
        some = True if True in found else None if None in found else False
        return some if node.kind == "any" else None if some is None else not some
    holds = slow_leaf(node, row)
    if node.held is None:
        return holds
    since = row.get(f"{node.field}.since")
    return slow_all([holds, None if since is None else AT - since >= node.held])


def slow_all(found: list[bool | None]) -> bool | None:
    return False if False in found else None if None in found else True


def slow_leaf(node: Leaf, row: dict[str, Any]) -> bool | None:
    seen = row.get(node.field)
    if node.op in ("exists", "not_exists"):
        return (seen is not None) == (node.op == "exists")
    if node.op.startswith("not_"):
        positive = slow_leaf(Leaf(node.field, node.op[4:], node.value, node.kind), row)
        return None if positive is None else not positive
    if seen is None:
        return None
    if node.op == "changed":
        return slow_changed(node, seen, row.get(f"before:{node.field}"))
    if node.op == "between":
        low, high = node.value
        return slow_all([slow_compare("gte", seen, low, node, row), slow_compare("lte", seen, high, node, row)])
    if node.op == "in":
        found = [slow_compare("equals", seen, one, node, row) for one in node.value]
        return True if True in found else False if False in found else None
    return slow_compare(node.op, seen, node.value, node, row)


def slow_changed(node: Leaf, seen: Any, before: Any) -> bool | None:
    if before is None:
        return None
    asked = node.value or Change()
    return (
        not same(seen, before)
        and (asked.before is None or same(before, asked.before))
        and (asked.after is None or same(seen, asked.after))
    )


def slow_compare(op: str, seen: Any, value: Any, node: Leaf, row: dict[str, Any]) -> bool | None:
    wanted = slow_operand(value, row)
    if wanted is None:
        return None
    if op == "contains":
        if isinstance(seen, tuple | list):
            return any(same(item, wanted) for item in seen)
        return wanted in seen if isinstance(seen, str) and isinstance(wanted, str) else None
    if op == "within":
        age = timedelta(days=seen) if node.kind == "number" else AT - seen
        return timedelta(0) <= age <= wanted
    if sort(seen) != sort(wanted):
        return None
    if op == "equals":
        return same(seen, wanted)
    return {"lt": seen < wanted, "lte": seen <= wanted, "gt": seen > wanted, "gte": seen >= wanted}[op]


def slow_operand(value: Any, row: dict[str, Any]) -> Any:
    if isinstance(value, Reference):
        seen = row.get(value.field)
        return None if seen is None else seen * value.times + value.plus
    return AT + value.after if isinstance(value, Relative) else value


def sort(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else type(value).__name__


def same(one: Any, two: Any) -> bool:
    return sort(one) == sort(two) and bool(one == two)


# -- what is drawn ----------------------------------------------------------------------------------------------------

numbers = st.integers(-4, 4).map(float)
instants = st.integers(-5, 2).map(lambda days: AT + timedelta(days=days))
labels = st.sampled_from(["a", "ab", "b", "低"])
anything = numbers | st.booleans() | labels | st.lists(labels | st.sampled_from([1.0, True]), max_size=2).map(tuple)
spans = st.integers(1, 4).map(lambda days: timedelta(days=days))
HISTORIES = (
    History("product.viewed", within=timedelta(days=7)),
    History("order.paid", "days_since_last"),
    History("order.paid", "sum", of="amount_minor"),
    History("custom", "distinct", of="colour", name="quiz", where=Leaf("event.size", "gt", 2.0, "any")),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n.a": numbers, "n.b": numbers, "n.age": numbers, "f.x": st.booleans(), "l.open": labels,
    "l.closed": st.sampled_from(["low", "high"]), "t.seen": instants,
    "s.codes": st.lists(labels, max_size=3).map(tuple), "trait.y": anything, "event.x": anything,
    HISTORIES[0].column: st.integers(0, 4).map(float), HISTORIES[1].column: st.integers(0, 4).map(float),
    HISTORIES[2].column: numbers, HISTORIES[3].column: st.integers(0, 4).map(float),
}  # fmt: skip
NEVER_MISSING = {history.column for history in HISTORIES if history.measure in ("count", "distinct")}
KINDS = {"trait.y": "any", "event.x": "any"} | {history.column: "number" for history in HISTORIES}
KINDS |= {name: field.kind for name, field in FIELDS.items() if not name.endswith("*")}
CHANGING = ("n.a", "f.x", "l.open", "l.closed", "t.seen", "s.codes", "trait.y")
ORDERED = st.sampled_from(["lt", "lte", "gt", "gte"])
EQUALITY = st.sampled_from(["equals", "not_equals"])
SOME = st.sampled_from(["in", "not_in"])
references = st.builds(Reference, st.sampled_from(["n.a", "n.b"]), st.sampled_from([0.5, 1.0, 2.0]), numbers)
relatives = st.integers(-5, 2).map(lambda days: Relative(timedelta(days=days)))
scalars = numbers | st.booleans() | labels


def several(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(values, min_size=1, max_size=3, unique_by=lambda one: (sort(one), one)).map(tuple)


def leaves_of(field: str) -> st.SearchStrategy[Leaf]:
    """Every comparison that can be asked of the field."""
    kind, values = KINDS[field], VALUES[field]
    history = next((one for one in HISTORIES if one.column == field), None)
    made = []

    def add(ops: st.SearchStrategy[str], operands: st.SearchStrategy[Any], held: Any = st.none()) -> None:
        made.append(st.builds(Leaf, st.just(field), ops, operands, st.just(kind), st.just(history), held))

    add(st.sampled_from(["exists", "not_exists"]), st.none())
    if kind in ("number", "flag", "label"):
        add(EQUALITY, values)
    if kind in ("number", "label"):
        add(SOME, several(values))
    if kind in ("number", "time"):
        add(ORDERED, values)
        add(st.just("between"), st.tuples(values, values))
    if kind == "number":
        add(ORDERED | EQUALITY, references)
        add(st.just("between"), st.tuples(references | numbers, references | numbers))
    if kind == "time":
        add(ORDERED, relatives)
        add(st.just("between"), st.tuples(relatives | instants, relatives | instants))
    if kind == "any":
        add(EQUALITY, scalars)
        add(SOME, several(scalars))
        add(ORDERED, numbers)
        add(st.just("between"), st.tuples(numbers, numbers))
        add(st.just("contains"), scalars)
    if field in ("n.age", "t.seen") or (history and history.measure.startswith("days")):
        add(st.just("within"), st.integers(0, 4).map(lambda days: timedelta(days=days)))
    if kind in ("list", "label"):
        add(st.just("contains"), labels)
    if field in ("f.x", "l.open"):
        add(st.just("equals"), values, spans)
    if field == "f.x":
        add(st.just("not_equals"), values, spans)
    if field in CHANGING:
        add(st.just("changed"), st.none())
        if kind in ("number", "flag", "label", "any"):
            named = scalars if kind == "any" else values
            add(st.just("changed"), st.builds(Change, named, st.none()) | st.builds(Change, st.none(), named))
            pairs = st.tuples(named, named).filter(lambda pair: not same(*pair))
            add(st.just("changed"), pairs.map(lambda pair: Change(*pair)))
    return st.one_of(made)


leaves = st.one_of([leaves_of(field) for field in sorted(VALUES)])
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        Group, st.sampled_from(conditions.GROUPS), st.lists(inner, min_size=1, max_size=4).map(tuple)
    ),
    max_leaves=12,
)

# by hand, since drawing thirty values one by one is what such a test would spend its time on
WORDS = ("a", "ab", "b", "低")
TUPLES = ((), ("a",), ("ab", "低"), ("b", "b"), (1.0,), (True, "a"))
SEEN: dict[str, tuple[Any, ...]] = {
    "number": tuple(map(float, range(-4, 5))), "flag": (True, False), "label": WORDS, "list": TUPLES[:4],
    "time": tuple(AT + timedelta(days=days) for days in range(-5, 3)),
    "any": (*range(-4, 5), True, False, *WORDS, *TUPLES),
}  # fmt: skip


def row_of(seed: int) -> dict[str, Any]:
    """One customer: a value for each column, every fifth missing."""
    draw = random.Random(seed)

    def one(name: str, kind: str) -> Any:
        if name in NEVER_MISSING:
            return draw.choice(SEEN["number"][4:])
        if draw.random() < 0.2:
            return None
        return draw.choice(("low", "high") if name.endswith("l.closed") else SEEN[kind])

    row = {name: one(name, KINDS[name]) for name in VALUES}
    row |= {f"before:{name}": one(f"before:{name}", KINDS[name]) for name in CHANGING}
    return row | {f"{name}.since": one("since", "time") for name in ("f.x", "l.open")}


rows = st.integers(0, 2**32).map(row_of)


def columns_of(listed: list[dict[str, Any]], *, coded: bool = False) -> dict[str, Any]:
    """The rows as columns; `coded`: labels and lists as Labels."""
    columns: dict[str, Any] = {"at": np.full(len(listed), AT.timestamp())}
    for name in listed[0]:
        values = [row[name] for row in listed]
        kind = "time" if name.endswith(".since") else KINDS[name.removeprefix("before:")]
        if kind in ("label", "list", "any"):
            column = np.fromiter(values, dtype=object, count=len(values))
            columns[name] = Labels.of(column) if coded and kind != "any" else column
        else:
            plain = [one.timestamp() if isinstance(one, datetime) else one for one in values]
            columns[name] = np.array([np.nan if one is None else float(one) for one in plain])
    return columns
