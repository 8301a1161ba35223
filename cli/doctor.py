"""`opagent doctor`: looks at this machine and this installation; each line says ok, warn or fail, and what to do."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import text

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import AgentError, Rejected
from operation_agent.kit.settings import Settings, settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from cli.datafolder import StackInfo

Level = Literal["ok", "warn", "fail"]
MINIMUM_POSTGRESQL = 150000
"""PostgreSQL 15: the first with SECURITY INVOKER views and public schemas that are closed by default."""
COMPONENTS = ("worker", "relay", "scheduler")
STALE_AFTER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    found: str
    advice: str = ""


def run(*, as_json: bool, only: frozenset[str] = frozenset()) -> int:
    """Print every finding, or those of the checks named; 1 when one of them is a fail. Raises Rejected for no such."""
    findings = [finding for finding in examine(settings()) if not only or finding.check in only]
    missing = only - {finding.check for finding in findings}
    if missing:
        raise Rejected(
            f"no check called {', '.join(sorted(missing))} was made here; `opagent doctor` shows those that are"
        )
    if as_json:
        from cli.output import show_json

        show_json([asdict(finding) for finding in findings])
    else:
        _show(findings)
    return int(any(finding.level == "fail" for finding in findings))


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False, soft_wrap=True)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for one in findings:
        advice = f" - {one.advice}" if one.advice else ""
        colour = colours[one.level]
        console.print(f"[{colour}]{one.level:<4}[/{colour}] {one.check:<12} {escape(one.found + advice)}")


def examine(current: Settings) -> Iterator[Finding]:
    """All findings, the machine's first. A check that cannot be made is a fail with the reason."""
    from cli.datafolder import running_stack

    stack = running_stack(current.data_dir)
    yield _python()
    yield from _guarded("data folder", lambda: _data_folder(current.data_dir))
    yield _disk(current.data_dir)
    yield _port(current, stack)
    yield _time_zones()
    yield from _guarded("secret key", lambda: _secret(current))
    yield from _database(current, stack)
    yield from _guarded("redis", lambda: _redis(current, stack))
    yield from _leftovers()


def _guarded(check: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield look()
    except (AgentError, OSError) as error:
        yield Finding(check, "fail", str(error))


def _python() -> Finding:
    level: Level = "ok" if sys.version_info[:2] in ((3, 11), (3, 12)) else "warn"
    advice = "" if level == "ok" else "the embedded servers have wheels for Python 3.11 and 3.12"
    return Finding("python", level, f"{platform.python_version()} on {platform.platform()}", advice)


def _data_folder(path: Path) -> Finding:
    from embedded.folders import our_folder

    if not path.exists():
        return Finding("data folder", "ok", f"{path.absolute()} is made by the first `opagent up`")
    our_folder(path)
    if path.stat().st_mode & 0o077:
        return Finding("data folder", "warn", f"{path} can be read by others", f"chmod 700 {path}")
    return Finding("data folder", "ok", str(path.resolve()))


def _disk(path: Path) -> Finding:
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    level: Level = "fail" if free < 200 << 20 else "warn" if free < 2 << 30 else "ok"
    advice = "" if level == "ok" else "PostgreSQL stops when the disk is full; make room or move OPAGENT_DATA_DIR"
    return Finding("disk", level, f"{free / (1 << 30):.1f} GiB free", advice)


def _port(current: Settings, stack: StackInfo | None) -> Finding:
    from cli.stack import listen

    if stack is not None:
        return Finding("port", "ok", f"the agent serves {stack.url}")
    try:
        listen(current).close()
    except AgentError as error:
        return Finding("port", "fail", error.detail)
    return Finding("port", "ok", f"{current.host}:{current.port} is free")


def _time_zones() -> Finding:
    from importlib.metadata import version
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        for name in ("UTC", "Asia/Shanghai", "America/New_York"):
            ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        return Finding("time zones", "fail", str(error), "pip install tzdata")
    return Finding("time zones", "ok", f"tzdata {version('tzdata')}")


def _secret(current: Settings) -> Finding:
    from operation_agent.kit.secrets import secret_key

    if current.secret_key is None and not (current.data_dir / "secret.key").exists():
        return Finding("secret key", "ok", "`opagent up` makes one at its first start")
    secret_key(current)
    where = "OPAGENT_SECRET_KEY" if current.secret_key else str(current.data_dir / "secret.key")
    return Finding("secret key", "ok", f"from {where}; keep a copy: stored credentials and keys depend on it")


def _database(current: Settings, stack: StackInfo | None) -> Iterator[Finding]:
    from sqlalchemy.exc import SQLAlchemyError

    if current.database_url is None and not (current.data_dir / "postgres.id").exists():
        yield Finding("postgresql", "ok", "the embedded one is made by the first `opagent up`")
        return
    from cli.installation import database_url
    from operation_agent.store.engine import connect

    try:
        with database_url() as url:
            engine = connect(url, pool_size=1, application_name="opagent-doctor")
            try:
                yield from _database_findings(engine, served=stack is not None or current.database_url is not None)
            finally:
                engine.dispose()
    except (AgentError, SQLAlchemyError) as error:
        line = " ".join(str(getattr(error, "orig", error)).split())
        advice = "check OPAGENT_DATABASE_URL" if current.database_url else "see postgres.log below the data folder"
        yield Finding("postgresql", "fail", line[:300], advice)


def _database_findings(engine: Engine, *, served: bool) -> Iterator[Finding]:
    from migrations.run import current, head

    with engine.connect() as connection:
        yield from _server(connection)
        revision = current(connection)
        if revision != head():
            advice = "run `opagent db upgrade`" if served else "`opagent up` does it, or `opagent db upgrade`"
            found = f"at {revision or 'none'}, newest {head()}"
            yield Finding("migrations", "fail" if served else "warn", found, advice)
            return
        yield Finding("migrations", "ok", f"at {revision}")
        yield _row_security(connection)
    if served:
        yield from _heartbeats(engine)
    yield from _integrations(engine)


def _server(connection: Connection) -> Iterator[Finding]:
    number, version, theirs = connection.execute(
        text(
            "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
            " clock_timestamp()"  # its clock is what is looked at here
        )
    ).one()
    old = number < MINIMUM_POSTGRESQL
    yield Finding(
        "postgresql", "fail" if old else "ok", version, "PostgreSQL 15 is the oldest that works" if old else ""
    )
    off = abs((theirs - SYSTEM.now()).total_seconds())
    level: Level = "warn" if off > 2 else "ok"
    advice = "the database's clock and ours differ; keep both with NTP" if off > 2 else ""
    yield Finding("clock", level, f"{SYSTEM.now():%Y-%m-%d %H:%M:%S} UTC, {off:.1f} s off", advice)


def _row_security(connection: Connection) -> Finding:
    role, bypasses = connection.execute(
        text("SELECT current_user, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
    ).one()
    bare = connection.execute(
        text(
            "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'"
            " AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
        )
    ).scalar_one()
    if bypasses:
        return Finding("tenancy", "fail", f"the role {role} bypasses row-level security", "see docs/runbook.md, Roles")
    if bare:
        return Finding("tenancy", "fail", f"{bare} tables without row-level security", "run `opagent db upgrade`")
    return Finding("tenancy", "ok", f"row-level security binds the role {role}")


def _heartbeats(engine: Engine) -> Iterator[Finding]:
    from operation_agent.store.session import for_system

    with for_system(engine) as session:
        rows = session.execute(text("SELECT component, max(beat_at) FROM heartbeats GROUP BY component")).all()
    beats = {component: SYSTEM.now() - at for component, at in rows}
    for component in COMPONENTS:
        age = beats.get(component)
        if age is None:
            yield Finding(
                component, "fail", "has never run on this database", "start it: `opagent up`, or your own unit"
            )
        elif age > STALE_AFTER:
            yield Finding(
                component, "fail", f"last seen {age.total_seconds():.0f} s ago", "see its log, and restart it"
            )
        else:
            yield Finding(component, "ok", f"last seen {max(age.total_seconds(), 0):.0f} s ago")


def _integrations(engine: Engine) -> Iterator[Finding]:
    """Providers that refuse everything, scopes that are not granted, webhooks that are not asked for."""
    from operation_agent.store.session import for_shop, for_system
    from operation_agent.store.shops import list_shops
    from operation_agent.storefront import connection

    with for_system(engine) as session:
        shops = list_shops(session)
    for shop in shops:
        with for_shop(engine, shop.id) as session:
            rows = session.execute(
                text("SELECT * FROM integrations WHERE shop_id = :shop AND enabled ORDER BY vendor"), {"shop": shop.id}
            ).all()
        for row in rows:
            if row.problem is not None:
                since = f"since {row.problem_at:%Y-%m-%d %H:%M} UTC: {row.problem_detail}"
                found = f"{shop.slug}: {row.vendor} is stopped, {row.problem} {since}"
                yield Finding("integration", "fail", found, connection.ADVICE[row.problem]["en"])
            elif row.vendor == "shopify":
                yield _shopify(shop.slug, row)


def _shopify(slug: str, row: Any) -> Finding:
    told = row.subscriptions
    if row.checked_at is None:
        because = f" ({told['problem']})" if told.get("problem") else ""
        return Finding(
            "integration", "warn", f"{slug}: shopify was never reached{because}", "POST /api/integrations/shopify/check"
        )
    wrong = [
        *(f"{name} lacks {', '.join(scopes)}" for name, scopes in told.get("lacking", {}).items()),
        *([f"no webhooks: {told['problem']}"] if told.get("problem") else []),
        *(f"webhook {one['topic']} is refused: {one['why']}" for one in told.get("refused", [])),
        *([f"webhooks not finished: {told['interrupted']}"] if told.get("interrupted") else []),
    ]
    version = told.get("api_version")
    if version and told.get("served_version") not in (None, version):
        wrong.append(f"API version {version} has expired, {told['served_version']} answers: set config.api_version")
    if version and told.get("webhook_version") not in (None, version):
        wrong.append(f"webhooks are written in {told['webhook_version']}: set {version} in the app's configuration")
    if wrong:
        advice = "docs/howto/connect-shopify.md says how to grant and to set up"
        return Finding("integration", "warn", f"{slug}: shopify: {'; '.join(wrong)}", advice)
    topics = len(told.get("wanted", []))
    return Finding("integration", "ok", f"{slug}: shopify, {len(row.scopes)} scopes, {topics} webhook topics")


def _redis(current: Settings, stack: StackInfo | None) -> Finding:
    url = current.redis_url or (stack.redis_url if stack else None)
    if url is None:
        from embedded.redis import binary

        return Finding("redis", "ok", f"the embedded one starts with `opagent up` ({binary().name})")
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
            about = client.info()
            policy = about.get("maxmemory_policy", "noeviction")
    except (RedisError, OSError, ValueError) as error:
        return Finding("redis", "fail", str(error), "check OPAGENT_REDIS_URL")
    if policy != "noeviction":
        return Finding("redis", "warn", f"maxmemory-policy is {policy}", "set noeviction: others may delete wake-ups")
    return Finding("redis", "ok", str(about["redis_version"]))


def _leftovers() -> Iterator[Finding]:
    """Clusters below ROOT_HOME whose data folder has gone: never deleted by us, since a disk may not be mounted."""
    from embedded.postgres import ROOT_HOME

    for home in sorted(ROOT_HOME.glob("*/data-folder")):
        try:
            owner = Path(home.read_text())
            gone = not (owner / "postgres.id").exists() or (owner / "postgres.id").read_text() != home.parent.name
        except OSError:
            continue
        if gone:
            advice = f"rm -r {home.parent} when its data is not wanted any more"
            yield Finding("leftovers", "warn", f"{home.parent} is the database of {owner}, which has gone", advice)
