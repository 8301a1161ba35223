"""The rules of docs/architecture.md that no linter knows, held over the syntax trees of the whole checkout.

Run by `make check`. Every exception stands below, with its reason.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOMS = ["api", "bench", "cli", "embedded", "integrations", "migrations", "operation_agent", "rules", "simulator"]
ROOMS += ["tests", "workers"]
LONGEST_FILE = 600
BAD_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

COMMITTERS = {
    "operation_agent/store/session.py": "the unit of work",
    "operation_agent/store/group_commit.py": "the intake's group commit: many requests, one transaction",
    "migrations/run.py": "Alembic's own connection: roles and the migration lock, before any session exists",
}
SENDERS = {"workers/relay.py": "the outbox is published here and nowhere else"}
CALLERS = ("integrations/", "simulator/", "bench/", "cli/", "tests/")
"""Rooms that talk to the outside over HTTP; cli/ only to its own API."""
CLOCKS = {"operation_agent/kit/clock.py": "the only place that reads the time"}
TIMERS = ("bench/", "tests/")
"""Rooms that measure: their stop watches and wall clocks are not the agent's time."""
SQL_CLOCKS = {
    "cli/doctor.py": "looks at the database's clock",
}

_HTTP_CLIENTS = {"httpx", "requests", "aiohttp", "urllib3", "sendgrid", "twilio", "shopify"}
_TIME_READS = {
    ("time", "time"), ("time", "time_ns"), ("time", "monotonic"), ("time", "perf_counter"), ("datetime", "now"),
    ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"),
}  # fmt: skip
_SQL_TIMES = ("now()", "current_timestamp", "clock_timestamp()", "statement_timestamp()", "current_date")


@dataclass(frozen=True)
class Source:
    """One file: its path from the checkout's root, its text and its tree."""

    path: str
    text: str
    tree: ast.Module


@dataclass(frozen=True)
class Breach:
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


Rule = Callable[[Source], Iterator[Breach]]


def _calls(source: Source, names: set[str]) -> Iterator[ast.Call]:
    """Calls of a method with one of `names`, on whatever object."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            yield node


def only_the_session_commits(source: Source) -> Iterator[Breach]:
    if source.path in COMMITTERS or source.path.startswith(("tests/", "bench/")):
        return
    for call in _calls(source, {"commit"}):
        owner = call.func.value  # type: ignore[attr-defined]
        if isinstance(owner, ast.Name) and owner.id == "intake":
            continue  # events.intake.commit(session, ...) is a function of ours that leaves the commit to the session
        yield Breach(source.path, call.lineno, "commits; only store/session.py does (take a Session instead)")


def only_the_relay_sends(source: Source) -> Iterator[Breach]:
    if source.path in SENDERS or source.path.startswith(("tests/", "bench/")):
        return
    for call in _calls(source, {"send_task", "delay", "apply_async"}):
        yield Breach(source.path, call.lineno, "sends to Celery; only workers/relay.py does (ring the outbox instead)")


def only_integrations_call_outside(source: Source) -> Iterator[Breach]:
    if source.path.startswith(CALLERS):
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        own = isinstance(node, ast.ImportFrom) and node.level > 0
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for module in [] if own else modules:
            if module.split(".")[0] in _HTTP_CLIENTS:
                yield Breach(source.path, node.lineno, f"imports {module}; only integrations/ call the outside")


def only_the_clock_reads_time(source: Source) -> Iterator[Breach]:
    if source.path in CLOCKS or source.path.startswith(TIMERS):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and (_last_name(node.value), node.attr) in _TIME_READS:
            yield Breach(
                source.path, node.lineno, f"reads the time by {node.attr}; take it as an argument, or kit/clock.py"
            )
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and node.level == 0:
            taken = {("time", alias.name) for alias in node.names} & _TIME_READS
            if taken:
                yield Breach(source.path, node.lineno, "imports a reader of the time; take it as an argument")


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def no_time_in_sql(source: Source) -> Iterator[Breach]:
    if source.path in SQL_CLOCKS or source.path.startswith(("tests/", "bench/")):
        return
    docstrings = {id(node) for node in _docstrings(source.tree)}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
            continue
        text = node.value.lower()
        for name in _SQL_TIMES:
            if name in text:
                yield Breach(source.path, node.lineno, f"{name} in SQL; times are parameters")


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:  # a bare string is a docstring, of the module or of the attribute above it
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                yield statement.value


def package_files_are_empty(source: Source) -> Iterator[Breach]:
    if source.path.endswith("/__init__.py") and source.text.strip():
        yield Breach(source.path, 1, "a package's __init__.py stays empty")


def files_are_short(source: Source) -> Iterator[Breach]:
    lines = source.text.count("\n")
    if lines > LONGEST_FILE:
        yield Breach(source.path, LONGEST_FILE, f"{lines} lines; split it by use case (at most {LONGEST_FILE})")


def names_say_what(source: Source) -> Iterator[Breach]:
    for part in Path(source.path).with_suffix("").parts:
        if part in BAD_NAMES:
            yield Breach(source.path, 1, f"a module called {part!r} says nothing; name it for what it holds")


def every_file_says_why(source: Source) -> Iterator[Breach]:
    empty = not source.text.strip()
    if not empty and not source.path.startswith("migrations/versions/") and ast.get_docstring(source.tree) is None:
        yield Breach(source.path, 1, "starts without a docstring")


RULES: tuple[Rule, ...] = (
    only_the_session_commits,
    only_the_relay_sends,
    only_integrations_call_outside,
    only_the_clock_reads_time,
    no_time_in_sql,
    package_files_are_empty,
    files_are_short,
    names_say_what,
    every_file_says_why,
)


def parse(path: str, text: str) -> Source:
    return Source(path, text, ast.parse(text, path))


def sources(root: Path) -> Iterator[Source]:
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            yield parse(path.relative_to(root).as_posix(), path.read_text())


def breaches(files: Iterator[Source]) -> list[Breach]:
    return [breach for source in files for rule in RULES for breach in rule(source)]


def main() -> int:
    found = breaches(sources(Path(__file__).parent.parent))
    for breach in found:
        sys.stderr.write(f"{breach}\n")
    sys.stdout.write(f"house rules: {len(found)} breaches\n" if found else "house rules: kept\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
