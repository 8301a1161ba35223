"""Strategies over HTTP: written as drafts, compared, published, rolled back; nothing anybody sends is our fault."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
import yaml
from sqlalchemy import text

from operation_agent.access.keys import create_key
from operation_agent.kit.clock import SYSTEM
from operation_agent.store.session import for_shop
from operation_agent.store.shops import load_shop, update_settings
from operation_agent.strategies import live
from operation_agent.strategies.library import library, template

pytestmark = pytest.mark.integration


class Api:
    """The API as one person uses it."""

    def __init__(self, client, engine, shop_id, name: str = "author"):
        self.client, self.engine, self.shop_id = client, engine, shop_id
        with for_shop(engine, shop_id) as session:
            token, _ = create_key(session, shop_id, name, ["*"], SYSTEM.now())
        self.headers = {"Authorization": f"Bearer {token}"}

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {
            **self.headers,
            "Content-Type": "application/json",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.client.request(method, f"/api/{path}", content=content, headers=sent)

    def done(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self(method, path, body, **headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def query(self, sql: str, **values: Any) -> list[Any]:
        with for_shop(self.engine, self.shop_id) as session:
            return list(session.execute(text(sql), {"shop": self.shop_id, **values}))


@pytest.fixture
def api(client, engine, shop_id) -> Api:
    return Api(client, engine, shop_id)


def definition(key: str = "spring", **changes: Any) -> dict[str, Any]:
    made = {**template("conversion").to_dict(), "key": key, **changes}
    return json.loads(json.dumps(made))


def with_percent(made: dict[str, Any], percent: float) -> dict[str, Any]:
    made = json.loads(json.dumps(made))
    for rule in made["rules"]:
        for arm in rule["then"]["arms"]:
            for step in arm["steps"]:
                if step.get("action") == "coupon":
                    step["percent"] = percent
    return made


_PEOPLE = """
WITH c AS (INSERT INTO customers (shop_id, id, random_key, first_seen_at, last_seen_at, created_at)
  SELECT :shop, gen_random_uuid(), gen_random_uuid(), now() - interval '300 days', now(), now()
  FROM generate_series(1, 20) RETURNING id)
INSERT INTO orders (shop_id, id, source_order_id, customer_id, ordered_at, currency, total_minor, updated_at, event_id)
SELECT :shop, gen_random_uuid(), id::text, id, now() - interval '200 days', 'USD', 5000, now(), gen_random_uuid()
FROM c ORDER BY c.id LIMIT 6 RETURNING id
"""


def test_an_approval_by_audience_goes_by_those_the_rules_take(api):
    api.query(_PEOPLE)
    made = {**template("win_back").to_dict(), "key": "spring"}  # six have not bought for long
    api.done("POST", "strategies", {"definition": {**made, "approval": {"audience_above": 10}}})
    api.done("POST", "strategies/spring/publish", {})
    api.done("PUT", "strategies/spring/draft", {**made, "approval": {"audience_above": 5}})
    refused = api("POST", "strategies/spring/publish", {})
    assert (refused.status_code, refused.json()["code"]) == (409, "approval_needed")
    (why,) = api.done("POST", "strategies/spring/approval", {})["why"]
    assert (why["rule"], why["limit"], why["found"]) == ("audience_above", 5, 6)


def test_a_strategy_is_drafted_edited_compared_published_and_rolled_back(api):
    made = api.done("POST", "strategies", {"definition": definition()})
    assert (made["state"], made["version"], made["draft"]) == ("draft", None, 1)
    assert [rule["state"] for rule in made["rules"]] == ["draft"]
    first = api.done("POST", "strategies/spring/publish", {"note": "go"})
    assert (first["version"], first["before"], first["strategy"]["state"]) == (1, None, "live")
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 15))
    (change,) = api.done("GET", "strategies/spring/diff")["changes"]
    assert (change["before"], change["after"]) == (10.0, 15.0) or (change["before"], change["after"]) == (10, 15)
    assert "15" in change["words"]["en"] and "15" in change["words"]["zh"]
    second = api.done("POST", "strategies/spring/publish", {})
    assert (second["version"], second["before"]) == (2, 1)
    assert [one["path"] for one in second["changes"]] == [change["path"]]
    back = api.done("POST", "strategies/spring/rollback", {"version": 1, "note": "too deep"})
    assert (back["version"], back["before"]) == (3, 2)
    states = [
        (one["version"], one["state"], one["note"]) for one in api.done("GET", "strategies/spring/versions")["items"]
    ]
    assert states == [(3, "live", "too deep"), (2, "retired", ""), (1, "retired", "go")]
    assert api.done("GET", "strategies/spring/versions/1")["definition"] == back["strategy"]["definition"]
    assert api.done("GET", "strategies/spring/diff?from=1&to=3")["changes"] == []
    verbs = [one["verb"] for one in api.done("GET", "strategies/spring/history")["items"]]
    assert verbs == [
        "strategy.rolled_back", "strategy.published", "strategy.edited", "strategy.published", "strategy.created",
    ]  # fmt: skip
    (edit,) = [one for one in api.done("GET", "strategies/spring/history")["items"] if one["verb"] == "strategy.edited"]
    assert edit["actor"] == "key:author"
    assert edit["detail"]["changes"][0]["after"] == 15


def test_only_rules_that_changed_get_a_new_version(api, engine, shop_id):
    made = definition()
    other = {**json.loads(json.dumps(made["rules"][0])), "key": "other"}
    made["rules"].append(other)
    api.done("POST", "strategies", {"definition": made, "state": "live"})
    before = {one["key"]: one for one in api.done("GET", "rules?state=live")}
    changed = json.loads(json.dumps(made))
    changed["rules"][1]["priority"] = 77
    api.done("PUT", "strategies/spring/draft", changed)
    (draft,) = api.done("GET", "rules?state=draft")
    assert (draft["key"], draft["version"], draft["id"]) == ("spring/other", 2, before["spring/other"]["id"])
    with for_shop(engine, shop_id) as session:
        assert {one.rule.priority for one in live.live_rules(session, shop_id)} == {30}  # a draft changes nothing
    done = api.done("POST", "strategies/spring/publish", {})
    assert (done["rules_changed"], done["rules_retired"]) == ([before["spring/other"]["id"]], [])
    with for_shop(engine, shop_id) as session:
        assert {one.key: one.version for one in live.live_rules(session, shop_id)} == {
            "spring/other": 2, "spring/unfinished-purchase": 1,
        }  # fmt: skip
    del changed["rules"][1]
    api.done("PUT", "strategies/spring/draft", changed)
    done = api.done("POST", "strategies/spring/publish", {})
    assert (done["rules_changed"], done["rules_retired"]) == ([], [before["spring/other"]["id"]])
    api.done("PUT", "strategies/spring/draft", made)
    api.done("POST", "strategies/spring/publish", {})
    back = api.done("GET", f"rules/{before['spring/other']['id']}")
    assert [(one["version"], one["state"]) for one in back] == [(3, "live"), (2, "retired"), (1, "retired")]


def test_who_looked_at_an_older_revision_is_told(api):
    made = api.done("POST", "strategies", {"definition": definition()})
    tag = f'"{made["revision"]}"'
    saved = api("PUT", "strategies/spring/draft", with_percent(definition(), 12), If_Match=tag)
    assert saved.status_code == 200
    assert saved.headers["etag"] == f'"{made["revision"] + 1}"'
    late = api("PUT", "strategies/spring/draft", with_percent(definition(), 50), If_Match=tag)
    assert (late.status_code, late.json()["code"]) == (409, "revision")
    assert api("POST", "strategies/spring/publish", {"revision": made["revision"]}).status_code == 409
    assert api("PATCH", "strategies/spring", {"state": "archived"}, If_Match=tag).status_code == 409
    assert api("POST", "strategies/spring/publish", {}, If_Match="seven").status_code == 400
    published = api("POST", "strategies/spring/publish", {}, If_Match=saved.headers["etag"])
    assert published.status_code == 200
    assert '"percent": 12' in json.dumps(published.json()["strategy"]["definition"])


def test_of_two_who_publish_at_once_one_wins(api):
    made = api.done("POST", "strategies", {"definition": definition()})
    answers: list[int] = []
    barrier = threading.Barrier(4)

    def publish() -> None:
        barrier.wait()
        answers.append(api("POST", "strategies/spring/publish", {"revision": made["revision"]}).status_code)

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]
    rows = api.query("SELECT count(*) FROM strategy_versions WHERE shop_id = :shop AND state = 'live'")
    assert rows[0][0] == 1


def test_what_is_not_to_be_published_is_a_conflict(api):
    assert api("POST", "strategies/none/publish", {}).status_code == 404
    api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    for path, body in (("publish", {}), ("rollback", {"version": 1})):
        answer = api("POST", f"strategies/spring/{path}", body)
        assert answer.status_code == 409, answer.text
    api.done("PUT", "strategies/spring/draft", definition())
    answer = api("POST", "strategies/spring/publish", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "unchanged")
    assert api("POST", "strategies/spring/rollback", {"version": 2}).status_code == 409  # the draft
    assert api("POST", "strategies/spring/rollback", {"version": 9}).status_code == 404
    discarded = api.done("DELETE", "strategies/spring/draft")
    assert (discarded["version"], discarded["draft"]) == (1, None)
    assert api("DELETE", "strategies/spring/draft").status_code == 409
    api.done("PATCH", "strategies/spring", {"state": "archived"})
    assert api("PUT", "strategies/spring/draft", definition()).status_code == 409
    assert api("POST", "strategies/spring/rollback", {"version": 1}).status_code == 409
    kept = api.done("GET", "strategies/spring/versions/1")
    assert (kept["state"], kept["definition"]["key"]) == ("retired", "spring")


def test_a_draft_that_is_being_edited_outlives_a_rollback(api):
    api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 20))
    api.done("POST", "strategies/spring/publish", {})
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 25))
    api.done("POST", "strategies/spring/rollback", {"version": 1})
    draft = api.done("GET", "strategies/spring/draft")
    assert draft["version"] == 4
    (rule,) = api.done("GET", "rules?state=draft")
    assert rule["version"] == 4
    published = api.done("POST", "strategies/spring/publish", {})
    assert (published["version"], published["before"]) == (4, 3)
    assert '"percent": 25' in json.dumps(published["strategy"]["definition"])


def test_a_rule_that_is_switched_off_decides_nothing(api, engine, shop_id):
    api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    (rule,) = api.done("GET", "rules?state=live")
    off = api.done("PATCH", f"rules/{rule['id']}", {"enabled": False})
    assert (off["state"], off["enabled"], off["version"]) == ("draft", False, 2)
    with for_shop(engine, shop_id) as session:
        assert len(live.live_rules(session, shop_id)) == 1
    api.done("POST", "strategies/spring/publish", {})
    with for_shop(engine, shop_id) as session:
        assert live.live_rules(session, shop_id) == ()
    assert api.done("GET", f"rules/{rule['id']}")[0]["state"] == "disabled"
    api.done("PATCH", f"rules/{rule['id']}", {"enabled": True})
    api.done("POST", "strategies/spring/publish", {})
    with for_shop(engine, shop_id) as session:
        assert [one.version for one in live.live_rules(session, shop_id)] == [3]


def test_rules_are_added_edited_and_removed_in_the_draft(api):
    api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    added = {**definition()["rules"][0], "key": "second", "priority": 5}
    made = api.done("POST", "rules", {"strategy": "spring", "definition": added})
    assert (made["key"], made["state"], made["strategy"]) == ("spring/second", "draft", "spring")
    assert api("POST", "rules", {"strategy": "spring", "definition": added}).status_code == 409
    wrong = api("PUT", f"rules/{made['id']}", {**added, "if": {"all": []}})
    assert (wrong.status_code, wrong.json()["where"]) == (400, "if.all")
    assert api("PUT", f"rules/{made['id']}", {**added, "key": "third"}).status_code == 400
    edited = api.done("PUT", f"rules/{made['id']}", {**added, "priority": 9})
    assert (edited["definition"]["priority"], edited["version"], edited["id"]) == (9, 1, made["id"])
    assert api("DELETE", f"rules/{made['id']}").status_code == 204
    assert api("GET", f"rules/{made['id']}").status_code == 404
    (only,) = api.done("GET", "rules?state=live")
    last = api("DELETE", f"rules/{only['id']}")
    assert (last.status_code, last.json()["where"]) == (400, "rules")


def test_a_visual_editor_reads_and_writes_conditions(api):
    query = {
        "id": "r", "combinator": "and", "rules": [
            {"id": "a", "field": "customer.orders", "operator": ">=", "value": "2"},
            {"id": "b", "combinator": "or", "rules": [
                {"field": "customer.open_cart", "operator": "=", "value": True},
                {"field": "customer.views_7d", "operator": "between", "value": "1,9"},
            ]},
        ],
    }  # fmt: skip
    made = definition()
    made["rules"][0]["if"] = query
    api.done("POST", "strategies", {"definition": made, "state": "live"})
    (rule,) = api.done("GET", "rules?state=live")
    assert rule["definition"]["if"]["all"][0] == {"field": "customer.orders", "op": "gte", "value": 2}
    (shown,) = api.done("GET", f"rules/{rule['id']}?conditions=querybuilder")
    assert shown["definition"]["if"]["combinator"] == "and"
    api.done("PUT", f"rules/{rule['id']}", shown["definition"])
    assert api.done("GET", "strategies/spring/diff")["changes"] == []
    query["rules"][1]["rules"][0]["field"] = "customer.nothing"
    wrong = api("PUT", f"rules/{rule['id']}", {**rule["definition"], "if": query})
    assert (wrong.status_code, wrong.json()["where"]) == (400, "if.rules[1].rules[0].field")


def test_a_budget_is_never_below_what_is_spent(api):
    api.done("POST", "strategies", {"definition": definition(budget={"limit": "100"}), "state": "live"})
    api.query("UPDATE budgets SET spent_minor = 6000, reserved_minor = 1000 WHERE shop_id = :shop RETURNING 1")
    api.done("PUT", "strategies/spring/draft", definition(budget={"limit": "69.99"}))
    refused = api("POST", "strategies/spring/publish", {})
    assert (refused.status_code, refused.json()["code"], refused.json()["where"]) == (409, "budget", "budget.limit")
    assert "70" in refused.json()["detail"]
    api.done("PUT", "strategies/spring/draft", definition(budget={"limit": "70", "daily": "5"}))
    api.done("POST", "strategies/spring/publish", {})
    (row,) = api.query("SELECT limit_minor, daily_minor, spent_minor FROM budgets WHERE shop_id = :shop")
    assert tuple(row) == (7000, 500, 6000)
    for written in (definition(), definition(budget={"limit": "500"})):  # without one, and one again
        api.done("PUT", "strategies/spring/draft", written)
        api.done("POST", "strategies/spring/publish", {})
    (row,) = api.query("SELECT limit_minor, daily_minor, spent_minor FROM budgets WHERE shop_id = :shop")
    assert tuple(row) == (50_000, None, 6000)


def test_a_limit_that_was_set_at_the_budget_itself_outlives_an_edit_of_something_else(api):
    made = definition(budget={"limit": "100"})
    api.done("POST", "strategies", {"definition": made, "state": "live"})
    api.query("UPDATE budgets SET limit_minor = 77700 WHERE shop_id = :shop RETURNING 1")
    api.done("PUT", "strategies/spring/draft", with_percent(made, 15))
    api.done("POST", "strategies/spring/publish", {})
    assert api.query("SELECT limit_minor FROM budgets WHERE shop_id = :shop")[0][0] == 77700


def test_many_strategies_come_from_one_template(api):
    for number in (1, 2):
        made = api.done(
            "POST",
            "strategies",
            {
                "template": "win_back", "key": f"win-back-{number}",
                "name": {"en": f"No. {number}", "zh": f"{number} 号"},
                "holdout": 0.1 * number, "budget": "50", "state": "draft",
            },
        )  # fmt: skip
        assert (made["key"], made["name"]["zh"], made["holdout"]) == (
            f"win-back-{number}",
            f"{number} 号",
            0.1 * number,
        )
    assert api("POST", "strategies", {"template": "win_back", "key": "win-back-1", "state": "draft"}).status_code == 409
    shown = api.done("GET", "strategies/templates")
    assert {one["key"] for one in shown} == set(library())
    assert all(one["why"].keys() == {"en", "zh"} for one in shown)


def test_yaml_in_and_out(api):
    written = yaml.safe_dump(definition(), allow_unicode=True).encode()
    made = api.done("POST", "strategies", written, Content_Type="application/yaml")
    assert (made["state"], made["key"]) == ("draft", "spring")
    out = api("GET", "strategies/spring?format=yaml")
    assert out.headers["content-type"].startswith("application/yaml")
    same = api("PUT", "strategies/spring/draft", out.content, Content_Type="application/yaml; charset=utf-8")
    assert same.status_code == 200, same.text
    assert api("GET", "strategies/spring/draft?format=yaml").content == out.content


def test_a_plain_rule_becomes_a_strategy(api):
    rule = {
        "rule_id": "R-1", "name": "决策期优惠", "priority": 1, "enabled": False,
        "conditions": {"purchase_stage": "决策阶段", "price_sensitivity": "高", "engagement_level": ["中", "高"]},
        "actions": [
            {"type": "send_email", "template": "discount_offer", "delay_minutes": 30},
            {"type": "create_discount", "discount": 0.1, "expiry_days": 7},
        ],
    }  # fmt: skip
    made = api.done("POST", "strategies", {"format": "plain", "definition": rule})
    assert (made["key"], made["state"]) == ("r-1", "draft")
    assert [one["enabled"] for one in made["rules"]] == [False]
    assert api("POST", "strategies", rule).status_code == 409  # told by its rule_id; and there already
    wrong = api("POST", "strategies/validate", {**rule, "actions": [{"type": "fax"}]})
    assert wrong.json()["errors"][0]["where"] == "actions[0].type"


def test_everything_that_is_wrong_is_said_at_once_and_nothing_stored(api):
    made = definition(goal="nonsense")
    made["rules"].append({**made["rules"][0], "key": "b", "if": {"all": [
        {"field": "customer.orders", "op": "gte", "value": "many"},
        {"field": "segment.nobody", "op": "equals", "value": True},
        {"field": "customer.orders", "op": "gte", "value": 1},
    ]}})  # fmt: skip
    answer = api.done("POST", "strategies/validate", made)
    assert not answer["valid"]
    assert [one["where"] for one in answer["errors"]] == [
        "rules[1].if.all[0].value",
        "rules[1].if.all[1].field",
        "goal",
    ]
    refused = api("POST", "strategies", {"definition": made})
    assert (refused.status_code, len(refused.json()["errors"])) == (400, 3)
    assert api.done("GET", "strategies") == []
    good = api.done("POST", "strategies/validate", definition())
    assert good["valid"] and good["definition"]["key"] == "spring"
    assert api.done("GET", "strategies") == []


def test_publishing_waits_for_another_persons_yes(api, client, engine, shop_id):
    other = Api(client, engine, shop_id, "approver")
    with for_shop(engine, shop_id) as session:
        update_settings(session, load_shop(session, shop_id), {"approval": {"percent_above": 20}})
    live_at_once = api("POST", "strategies", {"definition": with_percent(definition(), 30), "state": "live"})
    assert (live_at_once.status_code, live_at_once.json()["code"]) == (409, "approval_needed")
    api.done("POST", "strategies", {"definition": with_percent(definition(), 30)})
    asked = api.done("POST", "strategies/spring/approval", {})
    assert (asked["state"], asked["needed"], asked["why"][0]["rule"]) == ("pending", 1, "percent_above")
    assert api.done("POST", "strategies/spring/approval", {})["approval"] == asked["approval"]
    waiting = api("POST", "strategies/spring/publish", {})
    assert (waiting.status_code, waiting.json()["approval"]) == (409, asked["approval"])
    vote = f"approvals/{asked['approval']}/vote"
    assert api("POST", vote, {"verdict": "approve"}).status_code == 403  # one's own
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 40))
    again = api.done("POST", "strategies/spring/approval", {})
    assert again["approval"] != asked["approval"]
    other.done("POST", f"approvals/{again['approval']}/vote", {"verdict": "approve"})
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 41))
    assert api("POST", "strategies/spring/publish", {}).status_code == 409  # an edit after the yes
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 40))
    assert api.done("POST", "strategies/spring/publish", {})["version"] == 1
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 20))
    assert api.done("POST", "strategies/spring/publish", {})["version"] == 2  # shallow enough for nobody's yes


def test_taking_a_limit_away_is_held_to_it(api):
    made = definition(approval={"percent_above": 20, "approvers": 2})
    api.done("POST", "strategies", {"definition": made, "state": "live"})
    api.done("PUT", "strategies/spring/draft", with_percent(definition(), 50))
    asked = api.done("POST", "strategies/spring/approval", {})
    assert (asked["needed"], asked["why"][0]["of"]) == (2, "live version")


BAD: list[bytes] = [
    b"", b"null", b"[]", b"1", b'"x"', b"{}", b"{", b"\xff\xfe", b'{"rules": NaN}', b"[" * 10_000,
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000, b'{"\\ud83d": 1}', b'{"a": "\\u0000"}', b'{"a": 1e999}',
    b'{"a": 1, "a": 2}',
    '{"😀": {"😀": "😀"}}'.encode(), b'{"key": "\'; DROP TABLE strategies; --", "rules": [{}]}',
    b'{"template": {"a": 1}}', b'{"definition": []}', b'{"definition": {}, "template": "x"}',
    b'{"rule_id": {}, "conditions": [], "actions": 7}', b'{"version": 1e9}', b'{"version": -1}',
    b'{"enabled": "maybe"}',
    b'{"strategy": "\\u0000", "definition": {}}', b'{"state": 7}', b'{"note": {"x": 1}}', b'{"revision": "x"}',
    json.dumps({"rules": [{"key": "a", "if": {"field": "event." + "x" * 5000, "op": "exists"}}] * 300}).encode(),
]  # fmt: skip
BAD_YAML: list[bytes] = [
    b"a: &a [x]\nb: [*a, *a]", b"a: [1, 2", b"[" * 10_000, b"? {a: b}\n: c", b"!!python/object/apply:os.system [ls]",
    b"\t",
    b"a: 1\na: 2", b"--- 1\n--- 2", b"%YAML 9.9\n---\na: 1", b"a: \x00",
]  # fmt: skip
ROUTES = [
    ("POST", "strategies"), ("POST", "strategies/validate"), ("PUT", "strategies/spring/draft"),
    ("PATCH", "strategies/spring"), ("POST", "strategies/spring/publish"), ("POST", "strategies/spring/rollback"),
    ("POST", "strategies/spring/approval"), ("POST", "rules"), ("PUT", "rules/{rule}"), ("PATCH", "rules/{rule}"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_bad_body_is_refused_and_changes_nothing(api, method, path):
    made = api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    path = path.replace("{rule}", made["rules"][0]["id"])
    for body in BAD:
        answer = api(method, path, body)
        assert answer.status_code < 500, (body[:100], answer.text)
        assert answer.status_code >= 400 or path.endswith(("validate", "approval", "publish")), (
            body[:100],
            answer.text,
        )
    for body in BAD_YAML:
        answer = api(method, path, body, Content_Type="application/yaml")
        assert 400 <= answer.status_code < 500 or path.endswith("validate"), (body[:100], answer.text)
    large = api(method, path, b'{"a": "' + b"x" * 10_000_000 + b'"}')
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert api(method, path, b"x", Content_Type="text/html").status_code in (400, 415, 422)
    assert api.done("GET", "strategies/spring")["revision"] == made["revision"]


@pytest.mark.parametrize(
    "path",
    [
        "strategies/{}", "strategies/{}/draft", "strategies/{}/versions", "strategies/spring/versions/{}",
        "strategies/spring/diff?from={}", "strategies/spring/versions?cursor={}", "rules/{}", "rules?strategy={}",
        "strategies/{}/history",
    ],
)  # fmt: skip
def test_a_bad_name_is_not_our_fault(api, path):
    api.done("POST", "strategies", {"definition": definition(), "state": "live"})
    for name in (
        "%00",
        "%F0%9F%98%80",
        "'%3B--",
        "..%2F..",
        "99999999999999999999",
        "-1",
        "0",
        "x" * 300,
        "WzFd",
        "NaN",
    ):
        answer = api("GET", path.format(name))
        assert answer.status_code < 500, (path, name, answer.text)
