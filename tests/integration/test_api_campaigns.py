"""Campaigns over HTTP: started by hand, shown with their progress, steered; bad input is the caller's error."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from tests.integration.test_campaigns_running import AT, DAY, Place

pytestmark = pytest.mark.integration


@pytest.fixture
def place(engine, shop_id) -> Place:
    return Place(engine, shop_id)


@pytest.fixture
def call(engine, client, shop_id):
    """Sends a request with a key of the given permissions."""

    def make(*scopes: str):
        with for_shop(engine, shop_id) as session:
            token, _ = create_key(session, shop_id, "test", list(scopes), SYSTEM.now())

        def send(method: str, path: str = "", **options: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
            return client.request(method, f"/api/campaigns{path}", headers=headers, **options)

        return send

    return make


def test_a_campaign_is_started_by_hand_once_and_shows_what_it_did(place, call):
    send = call("campaigns:read", "campaigns:write")
    place.strategy("a")
    place.people(range(12))
    body = {"strategy": "a", "audience": {"condition": {"field": "customer.orders", "op": "gte", "value": 1}}}
    made = send("POST", json=body, headers={"Idempotency-Key": "one"})
    assert made.status_code == 201, made.text
    assert send("POST", json=body, headers={"Idempotency-Key": "one"}).json() == made.json()
    campaign = made.json()
    assert (campaign["kind"], campaign["state"], campaign["progress"]["customers"]) == ("manual", "preparing", 0)
    assert send("GET").json()["items"][0]["id"] == campaign["id"]
    assert len(send("GET").json()["items"]) == 1
    place.work()
    done = send("GET", f"/{campaign['id']}").json()
    assert (done["state"], done["progress"]["customers"], done["progress"]["decided"]) == ("finished", 12, 12)
    assert done["progress"]["acting"] + done["progress"]["held_out"] == 12
    assert [chunk["state"] for chunk in done["chunks"]] == ["done"]
    assert done["progress"]["verdicts"] == done["chunks"][0]["verdicts"]
    assert done["rules"][0]["key"] == "a/r0"


def test_steering_changes_the_state_or_says_why_not(place, call):
    send = call("campaigns:read", "campaigns:write")
    place.strategy("a")
    place.people(range(3))
    campaign = send("POST", json={"strategy": "a"}).json()["id"]
    assert send("POST", f"/{campaign}/resume").status_code == 409
    assert send("POST", f"/{campaign}/pause").json()["state"] == "paused"
    assert send("POST", f"/{campaign}/resume").json()["state"] == "preparing"
    cancelled = send("POST", f"/{campaign}/cancel").json()
    assert (cancelled["state"], cancelled["finished_at"]) == ("cancelled", None)
    place.work()
    assert send("GET", f"/{campaign}").json()["finished_at"] is not None
    assert send("POST", f"/{campaign}/cancel").status_code == 409
    assert place.decided() == []


def test_the_list_is_paged_and_filtered(place, call):
    send = call("campaigns:read")
    strategy = place.strategy("a")
    place.wake(AT - 5 * DAY, AT)
    first = send("GET", params={"limit": 2}).json()
    second = send("GET", params={"limit": 2, "cursor": first["next"]}).json()
    third = send("GET", params={"limit": 2, "cursor": second["next"]}).json()
    due = [one["due_at"] for page in (first, second, third) for one in page["items"]]
    assert due == sorted(due, reverse=True)
    assert (len(due), third["next"]) == (5, None)
    place.work()
    assert send("GET", params={"state": "preparing"}).json()["items"] == []
    assert len(send("GET", params={"state": "finished", "strategy": str(strategy)}).json()["items"]) == 5
    assert send("GET", params={"strategy": str(new_id())}).json()["items"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400), ({"strategy": ""}, 400), ({"strategy": "nothing"}, 404), ({"strategy": "a", "more": 1}, 400),
        ({"strategy": "a", "audience": {"segment": "nobody", "condition": {}}}, 400),
        ({"strategy": "a", "audience": {"condition": {}}}, 400),
        ({"strategy": "a", "audience": {"condition": {"all": []}}}, 400),
        ({"strategy": "a", "audience": {"condition": {"field": "event.type", "op": "equals", "value": "x"}}}, 400),
        ({"strategy": "a", "audience": {"segment": "no such segment\u0000"}}, 400),
        ({"strategy": "a", "as_of": "2099-01-01T00:00:00Z"}, 400), ({"strategy": "a", "as_of": "yesterday"}, 400),
    ],
)  # fmt: skip
def test_bad_input_is_the_callers_error(place, call, body, status):
    place.strategy("a")
    answer = call("campaigns:write")("POST", json=body)
    assert answer.status_code == status, answer.text


def test_reading_does_not_let_anybody_start_and_another_shops_campaign_is_not_there(place, call):
    place.strategy("a")
    assert call("campaigns:read")("POST", json={"strategy": "a"}).status_code == 403
    assert call("strategies:read")("GET").status_code == 403
    assert call("campaigns:read")("GET", f"/{new_id()}").status_code == 404
    assert call("campaigns:read")("GET", "/nothing").status_code == 400
