"""Texts, coupon codes and unsubscribe links: reproducible, escaped, signed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from operation_agent.actions.rendering import Job, Person, Sender, coupon_code, render
from operation_agent.actions.unsubscribe import Links, read, sign
from operation_agent.kit.errors import Denied, Rejected

pytestmark = pytest.mark.unit

SHOP, ACTION = UUID(int=1), UUID(int=2)
SENDER = Sender(SHOP, "demo", "Tea & Co", "Asia/Shanghai", "seed", "en", Links("https://agent.example", "s" * 32))
PERSON = Person(UUID(int=3), "c-9", "mei@example.com", None, "Mei <b>", "Lin", "zh-CN")
AT = datetime(2026, 3, 1, 20, tzinfo=UTC)
ZH = (
    "<p>{{ customer.first_name }}: {{ coupon.code }} {{ coupon.percent }}% {{ coupon.expires_at }} {{ shop.name }}</p>"
    "<a href='{{ unsubscribe_url }}'>退订</a>"
)
TEXTS = {
    "subject": {"en": "Hello\n{{ customer.first_name }}", "zh": "你好 {{ customer.first_name }}"},
    "body": {"en": "<p>{{ coupon.code }}</p>", "zh": ZH},
}


def email(person: Person = PERSON, parameters: dict | None = None, coupon: dict | None = None) -> dict:
    return render(SENDER, Job(ACTION, "email", "key", parameters or TEXTS, person, AT, coupon or {}))


def test_a_message_is_in_the_recipients_language_with_values_escaped():
    made = email(coupon={"code": "ABC", "percent": 15.0, "expires_at": "2026-03-15T20:00:00+00:00"})
    assert made["subject"] == "你好 Mei <b>"  # a subject is plain text
    assert "<p>Mei &lt;b&gt;: ABC 15% 2026-03-16 Tea &amp; Co</p>" in made["html"]  # the day is the shop's
    assert "https://agent.example/unsubscribe/" in made["html"]
    assert (made["to_name"], made["customer"], made["shop"]) == ("Mei <b> Lin", "c-9", "demo")


def test_a_line_break_in_a_name_cannot_start_a_header():
    person = Person(PERSON.id, None, "a@b.c", None, "Eve\r\nBcc: x@y.z", None, "en")
    assert email(person)["subject"] == "Hello Eve Bcc: x@y.z"


def test_what_is_missing_is_empty_and_what_never_ends_is_refused():
    assert email(Person(PERSON.id, None, "a@b.c", None, None, None, None))["html"] == "<p></p>"
    endless = "{% for a in (1..999999) %}{% for b in (1..999999) %}x{% endfor %}{% endfor %}"
    with pytest.raises(Rejected, match="cannot be rendered"):
        email(parameters={"subject": "x", "body": endless})


def test_a_coupon_code_follows_from_seed_and_key():
    made = render(SENDER, Job(ACTION, "coupon", "key", {"percent": 10, "expires_in": "P7D"}, PERSON, AT))
    assert made["code"] == coupon_code("seed", "key") == "".join(c for c in made["code"] if c not in "ILOU")
    assert len(made["code"]) == 10
    assert coupon_code("seed", "key") != coupon_code("seed", "key2") != coupon_code("seed2", "key2")
    assert (made["starts_at"], made["expires_at"]) == ("2026-03-01T20:00:00+00:00", "2026-03-08T20:00:00+00:00")


def test_an_unsubscribe_link_tells_whose_it_is_and_cannot_be_forged():
    token = sign("s" * 32, SHOP, ACTION)
    assert read("s" * 32, token) == (SHOP, ACTION)
    for forged in (token[:-2] + "AA", "A" * len(token), "", "ü", token[:-4], sign("t" * 32, SHOP, ACTION)):
        with pytest.raises(Denied):
            read("s" * 32, forged)
