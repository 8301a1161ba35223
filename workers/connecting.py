"""Looking after the connection to a shop: renewing its token, its scopes, its webhooks, and whether a problem passed.

Read and take in one transaction, call outside any, write down in another: a crash in between is found again by
`connection.due`. Whoever changed the credentials meanwhile is right, and what was found with the old ones is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from integrations.registry import Configured, check_address, client_for
from integrations.shopify import scopes, subscriptions, tokens, webhook
from integrations.shopify.client import Shopify
from integrations.shopify.errors import ScopeMissing, ShopUnavailable, Unauthorized, Uncertain
from integrations.shopify.scopes import Installation
from integrations.shopify.subscriptions import COMPLIANCE, Report
from operation_agent.kit.clock import SYSTEM, Clock
from operation_agent.kit.errors import AgentError, Rejected, Retryable
from operation_agent.kit.ids import uniform
from operation_agent.kit.logging import logger
from operation_agent.kit.secrets import Vault, secret_key
from operation_agent.kit.settings import settings
from operation_agent.store import audit
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop, load_shop
from operation_agent.storefront import connection
from operation_agent.storefront.connection import Connection

from .connections import redis

log = logger(__name__)

SOON = timedelta(minutes=2)
"""Until something that may pass is tried again."""
HOUR = timedelta(hours=1)
REMEMBERED = 20
"""Addresses of ours whose webhooks are still recognised as ours."""

Secrets = dict[str, str]


def _vault() -> Vault:
    return Vault(secret_key(settings()))


def _secrets(row: Connection) -> Secrets:
    return orjson.loads(_vault().open(row.secrets)) if row.secrets else {}


# -- tokens -------------------------------------------------------------------------------------------------------


def renew(engine: Engine, shop_id: UUID, vendor: str, *, clock: Clock = SYSTEM) -> bool:
    """Renew the token if that is due; True when there is a new one. Only one at a time does it (`take_renewal`)."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        row = connection.take_renewal(session, shop_id, vendor, at=clock.now())
    if row is None or row.problem == "uninstalled":
        return False
    secrets: Secrets = {}
    try:
        secrets = _secrets(row)
        made = _ask_token(row, secrets, sandbox=shop.sandbox, at=clock.now())
    except AgentError as error:
        _token_refused(engine, shop, row, error, at=clock.now())
        return False
    with for_shop(engine, shop_id) as session:
        return _keep_tokens(session, shop, vendor, made, asked_with=secrets, at=clock.now())


def _ask_token(row: Connection, secrets: Mapping[str, str], *, sandbox: bool, at: datetime) -> tokens.Tokens:
    check_address(row.base_url, sandbox=sandbox)
    if not (secrets.get("client_id") and secrets.get("client_secret")):
        raise Rejected("a token that expires is renewed with secrets.client_id and secrets.client_secret; enter them")
    app = tokens.App(secrets["client_id"], secrets["client_secret"])
    if secrets.get("refresh_token"):
        return tokens.renew(row.base_url, app, secrets["refresh_token"], at=at)
    if row.config.get("grant") == "client_credentials":
        return tokens.of_client(row.base_url, app, at=at)
    raise Rejected("there is no refresh token to renew the access token with; connect the shop again")


def _token_refused(engine: Engine, shop: Shop, row: Connection, error: AgentError, *, at: datetime) -> None:
    """The old token may still be good for minutes: what goes out is stopped by its end, not before."""
    log.warning("token_not_renewed", shop=shop.slug, vendor=row.vendor, code=error.code, detail=error.detail)
    passes = isinstance(error, Retryable)
    wait = max(SOON, error.retry_after) if isinstance(error, Retryable) else SOON
    is_over = row.token_expires_at is None or row.token_expires_at <= at
    with for_shop(engine, shop.id) as session:
        if is_over and not passes:
            told = f"the access token could not be renewed: {error.detail}"
            connection.note_problem(
                session, shop, row.vendor, "unauthorized", told, at=at, credentials=row.secrets
            )  # fmt: skip
            wait = HOUR
        connection.look_again(session, shop.id, row.vendor, renew_at=at + wait)


def _keep_tokens(
    session: Session, shop: Shop, vendor: str, made: tokens.Tokens, *, asked_with: Secrets, at: datetime
) -> bool:
    """Store both tokens at once, unless somebody entered others meanwhile."""
    row = connection.find(session, shop.id, vendor, lock=True)
    now = _secrets(row) if row is not None else {}
    if row is None or any(now.get(name) != asked_with.get(name) for name in ("access_token", "refresh_token")):
        return False
    now["access_token"] = made.access_token
    if made.refresh_token is not None:
        now["refresh_token"] = made.refresh_token
    connection.keep_credentials(
        session, shop.id, vendor, _vault().seal(orjson.dumps(now)), token_expires_at=made.expires_at,
        renew_at=made.renew_at,
    )  # fmt: skip
    connection.wake_waiting(session, shop.id, vendor, at=at)
    if connection.clear(session, shop, vendor, at=at, kinds=("unauthorized",)) or row.token_expires_at is None:
        connection.ask_check(session, shop.id, vendor, at=at)
    return True


# -- scopes, webhooks and problems --------------------------------------------------------------------------------


def check(engine: Engine, shop_id: UUID, vendor: str, *, clock: Clock = SYSTEM) -> Report | None:
    """Ask the shop what is granted, bring its webhooks to what is wanted, and see whether a problem has passed."""
    with for_shop(engine, shop_id) as session:
        shop = load_shop(session, shop_id)
        row = connection.take_check(session, shop_id, vendor, at=clock.now())
    if row is None:
        return None
    try:
        client = _client(row, sandbox=shop.sandbox)
    except Rejected as error:  # no token yet, or an address that may not be called
        with for_shop(engine, shop_id) as session:
            _keep(session, shop, row, Report(""), None, problem=error.detail, at=clock.now())
        return None
    try:
        return _check(engine, shop, row, client, clock)
    finally:
        client.close()


def _client(row: Connection, *, sandbox: bool) -> Shopify:
    configured = Configured(row.vendor, row.channel, row.base_url, row.config, row.secrets)
    return client_for(configured, _vault(), sandbox=sandbox, redis=redis())


def _check(engine: Engine, shop: Shop, row: Connection, client: Shopify, clock: Clock) -> Report | None:
    try:
        found = scopes.installation(client)
    except AgentError as error:
        with for_shop(engine, shop.id) as session:
            _not_reached(session, shop, row, error, at=clock.now())
        return None
    with for_shop(engine, shop.id) as session:
        if not _reached(session, shop, row, found, at=clock.now()):
            return None
        report, problem = _begin_report(session, shop, row)
    if problem is None:
        _repair(engine, shop, row, client, report, found, clock)
    asked, served = client.access.api_version, client.served_version
    with for_shop(engine, shop.id) as session:
        _keep(session, shop, row, report, found, problem=problem, versions=(asked, served), at=clock.now())
    return report


def _not_reached(session: Session, shop: Shop, row: Connection, error: AgentError, *, at: datetime) -> None:
    """The simplest question was not answered: what that means."""
    log.warning("connection_check", shop=shop.slug, vendor=row.vendor, code=error.code, detail=error.detail)
    current = connection.find(session, shop.id, row.vendor, lock=True)
    if isinstance(error, Unauthorized) and current and current.problem == "uninstalled":
        _forget_token(session, shop, current, at=at)
        return
    if isinstance(error, Unauthorized | ScopeMissing):  # it takes no scope: whoever may not ask this may do nothing
        connection.note_problem(
            session, shop, row.vendor, "unauthorized", error.detail, at=at, credentials=row.secrets
        )  # fmt: skip
    elif isinstance(error, ShopUnavailable):
        connection.note_problem(session, shop, row.vendor, "unavailable", error.detail, at=at, credentials=row.secrets)
    told = {"at": at.isoformat(), "problem": f"the shop was asked in vain: {error.detail}"}
    connection.keep_subscriptions(session, shop.id, row.vendor, told)
    wait = max(SOON, error.retry_after) if isinstance(error, Retryable) else HOUR
    connection.look_again(session, shop.id, row.vendor, check_at=at + wait)


def _forget_token(session: Session, shop: Shop, row: Connection, *, at: datetime) -> None:
    """The app is gone from the shop, and its tokens with it; what the shop told us stays until shop/redact."""
    left = {name: value for name, value in _secrets(row).items() if name not in ("access_token", "refresh_token")}
    sealed = _vault().seal(orjson.dumps(left)) if left else None
    connection.keep_credentials(session, shop.id, row.vendor, sealed, token_expires_at=None, renew_at=None)
    connection.rest(session, shop.id, row.vendor)
    audit.record(
        session, shop.id, at=at, actor="system", verb="integration.token_forgotten",
        subject=f"integration:{row.vendor}", detail={"why": "the app was uninstalled"},
    )  # fmt: skip


def _reached(session: Session, shop: Shop, row: Connection, found: Installation, *, at: datetime) -> bool:
    """Keep what is granted, and clear or note what follows from it. False: other credentials count by now."""
    current = connection.find(session, shop.id, row.vendor, lock=True)
    if current is None or current.secrets != row.secrets:
        return False
    connection.keep_scopes(session, shop.id, row.vendor, found.scopes, at=at)
    connection.clear(session, shop, row.vendor, at=at, kinds=("unavailable", "unauthorized", "uninstalled"))
    missing = scopes.lacking(found.scopes, scopes.CHANNEL_SCOPES) if row.channel else []
    # granted the same as before: whatever was refused for lack of a scope would be refused again
    if not missing and set(found.scopes) != set(row.scopes):
        connection.clear(session, shop, row.vendor, at=at, kinds=("scopes",))
    elif missing and _has_open_actions(session, shop.id, row.channel):
        connection.note_problem(session, shop, row.vendor, "scopes", f"not granted: {', '.join(missing)}", at=at)
    return True


def _has_open_actions(session: Session, shop_id: UUID, channel: str | None) -> bool:
    found: bool = session.execute(
        text("SELECT EXISTS (SELECT 1 FROM actions WHERE shop_id = :shop AND channel = :channel AND state = 'ready')"),
        {"shop": shop_id, "channel": channel},
    ).scalar_one()
    return found


# -- webhooks -----------------------------------------------------------------------------------------------------


def _begin_report(session: Session, shop: Shop, row: Connection) -> tuple[Report, str | None]:
    """Remember the address before anything is subscribed to it, so that it stays ours after a crash."""
    try:
        address = subscriptions.address_of(settings().public_url, shop.slug)
    except Rejected as error:
        return Report(""), error.detail
    before = [one for one in row.subscriptions.get("addresses", []) if one != address]
    connection.keep_subscriptions(session, shop.id, row.vendor, {"addresses": [*before, address][-REMEMBERED:]})
    return Report(address), None


def _repair(
    engine: Engine, shop: Shop, row: Connection, client: Shopify, report: Report, found: Installation, clock: Clock
) -> None:
    ours = set(row.subscriptions.get("addresses", [])) | {report.address}
    try:
        subscriptions.repair(client, report, webhook.TOPICS, granted=found.scopes, ours=ours)
    except Unauthorized as error:
        report.interrupted = error.detail
        with for_shop(engine, shop.id) as session:
            connection.note_problem(
                session, shop, row.vendor, "unauthorized", error.detail, at=clock.now(), credentials=row.secrets
            )
    except (Retryable, Rejected, Uncertain, ScopeMissing) as error:
        report.interrupted = error.detail


def _keep(
    session: Session, shop: Shop, row: Connection, report: Report, found: Installation | None, *,
    problem: str | None, at: datetime, versions: tuple[str | None, str | None] = (None, None),
) -> None:  # fmt: skip
    """Write the report down; audited when something was done, or is refused that was not refused before.

    `versions` of the API: asked for, and served.
    """
    told = asdict(report) | {
        "at": at.isoformat(),
        "problem": problem,
        "app": found.app if found else None,
        "lacking": scopes.lacking_by_feature(found.scopes, optional=False) if found else {},
        "api_version": versions[0],
        "served_version": versions[1],
        "webhook_version": found.webhook_version if found else None,
        "compliance": list(COMPLIANCE),
    }
    connection.keep_subscriptions(session, shop.id, row.vendor, told)
    is_known = replace(report, refused=[]) if report.refused == row.subscriptions.get("refused") else report
    if is_known.has_news:
        audit.record(
            session, shop.id, at=at, actor="system", verb="integration.webhooks_repaired",
            subject=f"integration:{row.vendor}",
            detail={name: told[name] for name in ("address", "created", "repaired", "removed", "refused")},
        )  # fmt: skip
    again = at + SOON if report.interrupted else _next_night(shop, at)
    connection.look_again(session, shop.id, row.vendor, check_at=again)


def _next_night(shop: Shop, at: datetime) -> datetime:
    """Some minute between four and five in the morning there, always the same of one shop."""
    minutes = int(60 * uniform("connection-check", str(shop.id)))
    local = at.astimezone(ZoneInfo(shop.time_zone))
    found = local.replace(hour=4, minute=minutes, second=0, microsecond=0)
    return (found if found > local else found + timedelta(days=1)).astimezone(at.tzinfo)
