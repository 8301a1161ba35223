"""SendGrid: what is sent, whose webhook is believed, and what its events mean."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from integrations.sendgrid import webhook
from integrations.sendgrid.channel import SendGridConfig, mail
from operation_agent.actions.channel import Delivery
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit

VECTOR = Path(__file__).parents[2] / "../shared/contracts/sendgrid/event_webhook_signature_vector.json"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def headers(signature: str, timestamp: str) -> dict[str, str]:
    return {webhook.SIGNATURE_HEADER.lower(): signature, webhook.TIMESTAMP_HEADER: timestamp}


def signed(body: bytes, timestamp: str = "1600000000") -> tuple[dict[str, str], str]:
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return headers(base64.b64encode(signature).decode(), timestamp), base64.b64encode(public).decode()


def test_sendgrids_own_vector_is_accepted_and_its_bad_ones_are_not():
    if not VECTOR.exists():
        pytest.skip("../shared/contracts is not here")
    vector = json.loads(VECTOR.read_text())
    body, good = vector["payload"].encode(), headers(vector["signature"], vector["timestamp"])
    assert webhook.verify(good, body, vector["public_key"])
    assert not webhook.verify(good, body, vector["bad_public_key"])
    assert not webhook.verify(headers(vector["bad_signature"], vector["timestamp"]), body, vector["public_key"])
    assert not webhook.verify(headers(vector["signature"], "1600112503"), body, vector["public_key"])
    assert not webhook.verify(good, body.strip(), vector["public_key"])  # the raw body counts, to the last byte


def test_nothing_is_accepted_without_a_key_or_a_signature():
    made, key = signed(b"[]")
    assert webhook.verify(made, b"[]", key)
    for wrong in ("", "bm8=", "not base64", base64.b64encode(b"x" * 91).decode()):
        assert not webhook.verify(made, b"[]", wrong)
    assert not webhook.verify({}, b"[]", key)
    assert not webhook.verify(headers("%%%", "1"), b"[]", key)


def event(**changes: object) -> dict:
    return {
        "email": "Ann@Example.com", "event": "open", "timestamp": 1767225600, "sg_message_id": "abc.filter1.2",
        "action_id": "a-1", "customer": "c-1", "sg_event_id": "x",
    } | changes  # fmt: skip


def parse(*events: dict) -> list:
    return webhook.parse(orjson.dumps(list(events)), received_at=NOW)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("delivered", "email.delivered"), ("open", "email.opened"), ("click", "email.clicked"),
        ("bounce", "email.bounced"), ("dropped", "email.dropped"), ("spamreport", "email.complained"),
        ("unsubscribe", "email.unsubscribed"), ("group_unsubscribe", "email.unsubscribed"),
    ],
)  # fmt: skip
def test_each_event_becomes_a_fact_about_its_action(name, type_):
    (found,) = parse(event(event=name))
    assert (found.type, found.source, found.occurred_at) == (type_, "sendgrid", datetime(2026, 1, 1, tzinfo=UTC))
    assert found.identity == {"external": "c-1"}
    assert found.properties["action_id"] == "a-1"
    assert (found.properties["provider_ref"], found.properties["address"]) == ("abc", "ann@example.com")


def test_a_retried_delivery_is_the_same_event_even_under_another_event_id():
    first, again = parse(event(), event(sg_event_id="y"))
    assert first.source_id == again.source_id
    assert len({one.source_id for one in parse(event(), event(timestamp=1767225601), event(event="click"))}) == 3


def test_a_block_is_not_a_bounce_for_good():
    hard, soft = parse(event(event="bounce", type="bounce", reason="550"), event(event="bounce", type="blocked"))
    assert (hard.properties["permanent"], soft.properties["permanent"]) == (True, False)
    assert hard.properties["reason"] == "550"


def test_without_our_customer_the_address_identifies():
    (found,) = parse(event(customer=""))
    assert found.identity == {"email": "ann@example.com"}


def test_events_that_say_nothing_are_left_out():
    assert parse(event(event="processed"), event(event="deferred"), event(event="new_in_2030")) == []


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", None), (b"{}", None), (b'["x"]', "[0]"), (b'[{"event":"open","timestamp":1}]', "[0].email"),
        (b'[{"event":"open","email":"a@b","timestamp":"soon"}]', "[0].timestamp"),
        (b'[{"event":"open","email":"a@b","timestamp":1e300}]', "[0].timestamp"),
        (b'[{"event":"open","email":"a@b","timestamp":true}]', "[0].timestamp"),
    ],
)  # fmt: skip
def test_a_body_that_sendgrid_would_not_send_is_refused_by_name(body, where):
    with pytest.raises(Rejected) as refused:
        webhook.parse(body, received_at=NOW)
    assert refused.value.where == where


def test_a_message_carries_its_keys_and_a_one_click_way_out():
    delivery = Delivery(
        UUID(int=7), "rule:1:key", "ann@example.com",
        {"subject": "Hi", "html": "<p>x</p>", "to_name": "Ann", "customer": "c-1", "shop": "demo",
         "unsubscribe_url": "https://agent.example/unsubscribe/t"},
    )  # fmt: skip
    made = mail(SendGridConfig.read({"from_email": "shop@example.com", "from_name": "Shop"}), delivery)
    (part,) = made["personalizations"]
    assert part["custom_args"] == {
        "action_id": str(UUID(int=7)), "dedupe_key": "rule:1:key", "customer": "c-1", "shop": "demo",
    }  # fmt: skip
    assert part["headers"] == {
        "List-Unsubscribe": "<https://agent.example/unsubscribe/t>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
    assert made["from"] == {"email": "shop@example.com", "name": "Shop"}


def test_a_sender_address_is_needed():
    with pytest.raises(Rejected, match="address"):
        SendGridConfig.read({})
