"""Places of a text that come out empty, found by rendering it."""

from __future__ import annotations

import pytest

from operation_agent.rehearsal.emptiness import Gap, gaps, is_empty
from operation_agent.strategies.vocabulary import vocabulary
from rules.strategy import parse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Hello {{ customer.first_name }}", True),
        ("Hello {{ customer.first_name | default: 'there' }}", False),
        ("{% if customer.first_name %}Hello {{ customer.first_name }}{% else %}Hello{% endif %}", False),
        ("{{ customer.first_name | default: 'you' }}, {{ customer.first_name }}", True),
        ("{{- customer.first_name | upcase -}}!", True),
        ("{% assign name = customer.first_name %}Dear {{ name }}", True),
        ("{{ customer.first_name | append: '!' }}", False),
        ("Hello", False),
    ],
)
def test_a_first_name_nobody_knows(source, expected):
    assert is_empty(source, "customer.first_name") is expected


BODY = "{{ customer.first_name | default: 'you' }}{{ unsubscribe_url }}"


def test_a_gap_names_its_step_and_its_languages():
    mail = {"action": "email", "key": "mail", "subject": {"en": "Hi", "zh": "{{ customer.first_name }}"},
            "body": dict.fromkeys(("en", "zh"), BODY)}  # fmt: skip
    rule = {"key": "r", "when": {"event": ["cart.added"]}, "if": {"field": "customer.orders", "op": "gte", "value": 1},
            "then": {"arms": [{"key": "a", "steps": [mail]}]}}  # fmt: skip
    names = {"en": "x", "zh": "x"}
    made = parse({"key": "k", "name": names, "goal": "conversion", "why": names, "rules": [rule]}, vocabulary())
    assert gaps(made.rules[0]) == [Gap("a", "mail", "customer.first_name", ("zh",))]
