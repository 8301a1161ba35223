"""Keys, users and sessions: nothing usable is stored, and what was revoked opens nothing."""

from __future__ import annotations

from datetime import timedelta
from statistics import median

import pytest
from sqlalchemy import text

from operation_agent.access import keys, sessions, users
from operation_agent.access.keyring import KeyRing
from operation_agent.kit.clock import SYSTEM, monotonic
from operation_agent.kit.errors import Conflict, Denied, NotFound, Rejected
from operation_agent.kit.ids import new_id
from operation_agent.store import audit
from operation_agent.store.session import for_shop, for_system

pytestmark = pytest.mark.integration

PASSWORD = "correct horse battery"


def make_key(engine, shop_id, scopes=("events:write",)):
    with for_shop(engine, shop_id) as session:
        return keys.create_key(session, shop_id, "shop front", scopes, SYSTEM.now(), actor="test")


def make_user(engine):
    with for_system(engine) as session:
        return users.create_user(session, f"U-{new_id().hex[-8:]}@Shop.Example", PASSWORD, SYSTEM.now())


def test_a_key_opens_its_shop_with_its_scopes(engine, shop_id):
    token, key = make_key(engine, shop_id, ["audit:read", "events:write"])
    assert token.startswith("opk_")
    assert len(token) >= 36
    with for_system(engine) as session:
        caller = keys.authenticate(session, token)
    assert (caller.shop.id, caller.scopes) == (shop_id, frozenset({"audit:read", "events:write"}))
    with for_shop(engine, shop_id) as session:
        assert keys.list_keys(session, shop_id) == [key]
        assert audit.verify(session, shop_id) is None


def test_the_key_is_not_in_the_database(engine, shop_id):
    token, key = make_key(engine, shop_id)
    with for_system(engine) as session:
        row = str(session.execute(text("SELECT * FROM api_keys WHERE id = :id"), {"id": key.id}).one())
    assert token not in row
    assert token[len(key.prefix) :] not in row


@pytest.mark.parametrize("token", ["", "opk_", "opk_" + "x" * 43, "Basic", "opk_\0", "opk_" + "é" * 5_000])
def test_what_is_no_key_is_refused(engine, token):
    with for_system(engine) as session, pytest.raises(Denied) as refused:
        keys.authenticate(session, token)
    assert refused.value.unauthenticated


def test_a_revoked_key_opens_nothing_once_the_cache_has_forgotten_it(engine, shop_id):
    now = [1000.0]
    ring = KeyRing(engine, clock=lambda: now[0])
    token, key = make_key(engine, shop_id)
    assert ring.remembered(token) is None
    assert ring.look_up(token).id == key.id
    with for_shop(engine, shop_id) as session:
        keys.revoke_key(session, shop_id, key.id, SYSTEM.now())
    assert ring.remembered(token) is not None
    now[0] += 2.1
    assert ring.remembered(token) is None
    with pytest.raises(Denied):
        ring.look_up(token)
    with pytest.raises(Denied):  # a refusal is remembered too
        ring.remembered(token)


def test_a_key_is_revoked_once_and_only_by_its_shop(engine, shop_id):
    _, key = make_key(engine, shop_id)
    with for_shop(engine, shop_id) as session:
        keys.revoke_key(session, shop_id, key.id, SYSTEM.now())
        with pytest.raises(Conflict):
            keys.revoke_key(session, shop_id, key.id, SYSTEM.now())
        with pytest.raises(NotFound):
            keys.revoke_key(session, shop_id, new_id(), SYSTEM.now())


def test_a_key_without_name_or_scope_is_refused(engine, shop_id):
    with for_shop(engine, shop_id) as session:
        for name, scopes in (("", ["*"]), ("k", []), ("k", ["nonsense"])):
            with pytest.raises(Rejected):
                keys.create_key(session, shop_id, name, scopes, SYSTEM.now())


def test_a_user_logs_in_by_address_in_any_case(engine):
    made = make_user(engine)
    with for_system(engine) as session:
        assert users.log_in(session, made.email.upper(), PASSWORD) == made
        for email, password in ((made.email, "wrong"), ("nobody@shop.example", PASSWORD), ("\0", PASSWORD)):
            with pytest.raises(Denied) as refused:
                users.log_in(session, email, password)
            assert refused.value.unauthenticated
        assert PASSWORD not in str(session.execute(text("SELECT * FROM users")).all())


def test_an_unknown_address_takes_as_long_as_a_wrong_password(engine):
    made = make_user(engine)

    def seconds(email: str) -> float:
        with for_system(engine) as session, pytest.raises(Denied):
            users.log_in(session, email, "wrong")
        began = monotonic()
        with for_system(engine) as session, pytest.raises(Denied):
            users.log_in(session, email, "wrong")
        return monotonic() - began

    known = median(seconds(made.email) for _ in range(5))
    unknown = median(seconds("nobody@shop.example") for _ in range(5))
    assert unknown > known / 3


def test_users_are_checked(engine):
    made = make_user(engine)
    with for_system(engine) as session:
        with pytest.raises(Conflict):
            users.create_user(session, made.email.upper(), PASSWORD, SYSTEM.now())
        with pytest.raises(Rejected):
            users.create_user(session, "not an address", PASSWORD, SYSTEM.now())
        with pytest.raises(Rejected):
            users.create_user(session, "short@shop.example", "short", SYSTEM.now())


def test_a_session_ends_by_time_by_log_out_and_with_its_user(engine):
    made, now = make_user(engine), SYSTEM.now()
    with for_system(engine) as session:
        first, second, third = (sessions.open_session(session, made.id, now) for _ in range(3))
        assert sessions.find_user(session, first, now + timedelta(hours=11, minutes=59)) == made
        assert first not in str(session.execute(text("SELECT * FROM sessions")).all())
        with pytest.raises(Denied):
            sessions.find_user(session, first, now + timedelta(hours=12))
        sessions.revoke_session(session, second, now)
        with pytest.raises(Denied):
            sessions.find_user(session, second, now)
        assert sessions.find_user(session, third, now) == made
        users.disable_user(session, made.id, now)
        with pytest.raises(Denied):
            sessions.find_user(session, third, now)
        with pytest.raises(Denied):
            users.log_in(session, made.email, PASSWORD)
