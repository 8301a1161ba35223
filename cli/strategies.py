"""`opagent strategy`: what the agent may do, from templates and files; drafts, versions, and a folder kept in step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from operation_agent.journeys.publishing import LeftBehind
    from operation_agent.store.shops import Shop
    from operation_agent.strategies.authoring import Published

app = typer.Typer(help="Strategies and their rules: drafts, versions, files.", no_args_is_help=True)

ShopName = Annotated[str, typer.Option("--shop", help="The shop's slug or id.")]
Key = Annotated[str, typer.Argument(help="The strategy's key or id.")]
Note = Annotated[str, typer.Option(help="Why; kept with the version.")]
Exit = Annotated[
    bool, typer.Option("--exit-in-flight", help="Take out who is under way in a rule that changes; else they finish.")
]
ACTOR = "cli"


@contextmanager
def in_shop(name: str) -> Iterator[tuple[Session, Shop]]:
    """One transaction of the shop: all of what a command does, or nothing."""
    from cli.installation import engine, find_shop
    from operation_agent.store.session import for_shop

    with engine() as database:
        found = find_shop(database, name)
        with for_shop(database, found.id) as session:
            yield session, found


@app.command("list")
def list_(shop: ShopName, as_json: AsJson = False) -> None:
    """The shop's strategies, archived ones too."""
    from operation_agent.strategies import records

    with in_shop(shop) as (session, found):
        rows = records.list_strategies(session, found.id)
    columns = ("key", "state", "version", "draft", "goal", "holdout", "revision")
    if as_json:
        show_json([{name: getattr(row, name) for name in ("id", *columns, "name", "started_at")} for row in rows])
    else:
        show_table(
            (*columns, "name"), ((*(_cell(getattr(row, one)) for one in columns), _words(row.name)) for row in rows)
        )


@app.command()
def show(
    key: Key,
    shop: ShopName,
    version: Annotated[str, typer.Option(help="A version's number, live or draft; by default what counts.")] = "",
    as_json: AsJson = False,
) -> None:
    """A strategy's definition, as YAML."""
    from operation_agent.strategies import authoring, document, records

    with in_shop(shop) as (session, found):
        row = records.find(session, found.id, key)
        raw = (
            authoring.at_version(session, found.id, row, read_version(version)).definition
            if version
            else row.definition
        )
    definition = records.read(raw).to_dict()
    if as_json:
        show_json(definition)
    else:
        print(document.write(definition), end="")


@app.command()
def versions(key: Key, shop: ShopName, as_json: AsJson = False) -> None:
    """Every version of a strategy: when, by whom, why."""
    from operation_agent.strategies import records
    from operation_agent.strategies import versions as kept

    with in_shop(shop) as (session, found):
        rows = kept.list_versions(session, found.id, records.find(session, found.id, key).id)
    columns = ("version", "state", "created_by", "published_by", "published_at", "note")
    if as_json:
        show_json([{name: getattr(row, name) for name in (*columns, "created_at", "authors")} for row in rows])
    else:
        show_table(columns, ([_cell(getattr(row, name)) for name in columns] for row in rows))


@app.command()
def templates(as_json: AsJson = False) -> None:
    """The templates that ship with the agent."""
    from operation_agent.strategies.library import library

    found = library()
    if as_json:
        show_json([{"key": key, **one.to_dict()} for key, one in found.items()])
    else:
        show_table(
            ("template", "goal", "name", "why"),
            ((key, one.goal, _words(one.name), one.why["en"]) for key, one in found.items()),
        )


@app.command()
def new(
    shop: ShopName,
    file: Annotated[Path | None, typer.Argument(help="A definition, or plain rules; YAML or JSON; - reads it.")] = None,
    template: Annotated[str | None, typer.Option(help="A shipped template instead of a file.")] = None,
    key: Annotated[str | None, typer.Option(help="In place of the one written.")] = None,
    holdout: Annotated[float | None, typer.Option(min=0, max=0.99, help="In place of the one written.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="In units of the shop's currency, in place of the one written.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a strategy as a draft; `publish` puts it live."""
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.kit.errors import Rejected
    from operation_agent.strategies import authoring, document, forms, library, lifecycle

    if (file is None) == (template is None):
        raise Rejected("give either a file or --template", where="FILE")
    with in_shop(shop) as (session, found):
        if template is not None:
            made = [library.template(template)]
        else:
            raw = document.read(read_content(file), name=str(file)) if file else None
            made = [forms.read_of_shop(session, found.id, one) for one in (raw if isinstance(raw, list) else [raw])]
        if len(made) > 1 and key is not None:
            raise Rejected("the file holds several rules; each has its own key", where="--key")
        rows = [
            authoring.create(
                session, found, lifecycle.adapted(one, key=key, holdout=holdout, budget=_amount(budget)),
                at=SYSTEM.now(), actor=ACTOR,
            )
            for one in made
        ]  # fmt: skip
    if as_json:
        show_json([{"key": row.key, "id": row.id, "state": row.state, "draft": row.draft} for row in rows])
    else:
        for row in rows:
            print(f"made the draft {row.key}; `opagent strategy publish {row.key} --shop {shop}` puts it live")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(help="YAML or JSON; - reads standard input.")],
    shop: Annotated[str | None, typer.Option("--shop", help="Its segments and strategies must exist there.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say everything that is wrong with a definition; exit code 2 when there is something."""
    from operation_agent.kit.errors import Rejected
    from operation_agent.strategies import document, forms
    from operation_agent.strategies.vocabulary import vocabulary

    try:
        raw = document.read(read_content(file), name=str(file))
        if shop is None:
            found = forms.problems(raw, vocabulary())
        else:
            key = raw.get("key") if isinstance(raw, dict) else None
            with in_shop(shop) as (session, known):
                words = forms.vocabulary_for(session, known.id, [key] if isinstance(key, str) else [])
                found = forms.problems(raw, words)
        errors = [{"where": f"{file}: {one.where}", "reason": one.reason} for one in found]
    except Rejected as error:
        errors = [{"where": error.where or str(file), "reason": error.detail}]
    if as_json:
        show_json({"valid": not errors, "errors": errors})
    else:
        print("\n".join(f"{one['where']}: {one['reason']}" for one in errors) or f"{file}: reads")
    raise typer.Exit(2 if errors else 0)


@app.command()
def diff(
    key: Key,
    shop: ShopName,
    before: Annotated[str, typer.Option("--from", help="A version's number, live or draft.")] = "live",
    after: Annotated[str, typer.Option("--to", help="A version's number, live or draft.")] = "draft",
    as_json: AsJson = False,
) -> None:
    """What differs between two versions, in words; by default what publishing the draft would change."""
    from operation_agent.strategies import authoring, records

    with in_shop(shop) as (session, found):
        row = records.find(session, found.id, key)
        _, _, changes = authoring.difference(session, found.id, row, read_version(before), read_version(after))
    _show_changes(changes, as_json=as_json)


@app.command()
def publish(key: Key, shop: ShopName, note: Note = "", exit_in_flight: Exit = False, as_json: AsJson = False) -> None:
    """Make the draft the version that counts; says first what that means now."""
    from cli.rehearsal import impact
    from operation_agent.journeys.publishing import lead_out
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.rehearsal.impact import audience
    from operation_agent.strategies import authoring

    if not as_json:
        impact(key, shop, version="draft", exit_in_flight=exit_in_flight, as_json=False)
    with in_shop(shop) as (session, found):
        at = SYSTEM.now()
        done = authoring.publish(
            session, found, key, at=at, actor=ACTOR, note=note,
            in_flight="exit" if exit_in_flight else "finish",
            audience=audience(session, found, at=at + found.clock_offset),
        )  # fmt: skip
        left = lead_out(session, found, done, at=at)
    _show_published(done, left, as_json=as_json)


@app.command()
def rollback(
    key: Key,
    version: Annotated[int, typer.Argument(min=1, help="The version that is to count again.")],
    shop: ShopName,
    note: Note = "",
    exit_in_flight: Exit = False,
    as_json: AsJson = False,
) -> None:
    """Publish an earlier version again, as a new one."""
    from operation_agent.journeys.publishing import lead_out
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.rehearsal.impact import audience
    from operation_agent.strategies import authoring

    with in_shop(shop) as (session, found):
        at = SYSTEM.now()
        done = authoring.roll_back(
            session, found, key, version, at=at, actor=ACTOR, note=note,
            in_flight="exit" if exit_in_flight else "finish",
            audience=audience(session, found, at=at + found.clock_offset),
        )  # fmt: skip
        left = lead_out(session, found, done, at=at)
    _show_published(done, left, as_json=as_json)


@app.command()
def ask(
    key: Key,
    shop: ShopName,
    version: Annotated[int | None, typer.Option(min=1, help="To go back to, instead of the draft.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask for the yes that publishing the draft needs."""
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.rehearsal.impact import audience
    from operation_agent.strategies import authoring

    with in_shop(shop) as (session, found):
        at = SYSTEM.now()
        asked = authoring.ask_approval(
            session, found, key, version=version, at=at, actor=ACTOR,
            audience=audience(session, found, at=at + found.clock_offset),
        )  # fmt: skip
    if as_json:
        show_json({"approval": asked.id, "state": asked.state, "needed": asked.needed} if asked else {"approval": None})
    elif asked is None:
        print("nobody's yes is needed; publish it")
    else:
        print(f"approval {asked.id} is {asked.state}: {asked.needed} other people must say yes")


@app.command()
def pause(key: Key, shop: ShopName) -> None:
    """Decide nothing more for it, until it is resumed."""
    _move(shop, key, "paused")


@app.command()
def resume(key: Key, shop: ShopName) -> None:
    """Let a paused strategy go on."""
    _move(shop, key, "live")


@app.command()
def archive(key: Key, shop: ShopName) -> None:
    """End a strategy for good; all of it is kept."""
    _move(shop, key, "archived")


def _move(shop: str, key: str, state: str) -> None:
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.strategies import lifecycle, records

    with in_shop(shop) as (session, found):
        before = records.find(session, found.id, key).state
        if state == "live" and before == "draft":
            from operation_agent.kit.errors import Conflict

            raise Conflict(f"strategy {key!r} was never published; `opagent strategy publish` does that", code="state")
        row = lifecycle.move(session, found, key, state, at=SYSTEM.now(), actor=ACTOR)
    print(f"{row.key} is {row.state}")


# -- words ------------------------------------------------------------------------------------------------------------


def written(changes: Any) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(one) for one in changes]


def _show_changes(changes: Any, *, as_json: bool, indent: str = "") -> None:
    if as_json:
        show_json(written(changes))
    elif not changes:
        print(f"{indent}no difference")
    for one in () if as_json else changes:
        print(f"{indent}{one.words['en']}")


def _show_published(done: Published, left: LeftBehind, *, as_json: bool) -> None:
    if as_json:
        show_json(
            {
                "key": done.strategy.key, "version": done.version, "before": done.before, "state": done.strategy.state,
                "changes": written(done.changes), "rules_changed": done.rules_changed,
                "rules_retired": done.rules_retired, "exited": left.runs, "called_off": left.actions,
            }
        )  # fmt: skip
        return
    print(f"{done.strategy.key} is {done.strategy.state} at version {done.version}")
    for one in done.changes:
        print(f"  {one.words['en']}")
    if done.in_flight == "exit":
        print(f"  {left.runs} customers taken out, {left.actions} planned actions called off")


def _words(name: dict[str, str]) -> str:
    return " / ".join(name[language] for language in ("en", "zh") if language in name)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value)


def read_version(written: str) -> Any:
    from operation_agent.kit.errors import Rejected

    if written in ("live", "draft"):
        return written
    if not (written.isascii() and written.isdigit() and 0 < len(written) < 10):
        raise Rejected(f"{written[:40]!r} is no version: a number, live or draft")
    return int(written)


def _amount(written: str | None) -> Any:
    from decimal import Decimal, InvalidOperation

    from operation_agent.kit.errors import Rejected

    if written is None:
        return None
    try:
        found = Decimal(written)
    except InvalidOperation:
        raise Rejected(f"{written[:40]!r} is not an amount", where="--budget") from None
    if not found.is_finite() or not 0 < found <= 10**12:
        raise Rejected("a budget is more than nothing, and at most a million million", where="--budget")
    return found


def read_content(file: Path | None) -> bytes:
    import sys

    from operation_agent.kit.errors import NotFound

    if file is None or str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}", where="FILE") from None
