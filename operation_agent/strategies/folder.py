"""A shop's strategies as a folder of files, one YAML file each, kept in step with the database.

The folder says what is live: a strategy that was never published is not in it. What `export` writes is canonical, so
that git shows what changed and nothing else; `apply` publishes exactly what was shown, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from operation_agent.kit.errors import Conflict, Rejected
from operation_agent.store.shops import Shop
from rules.diff import Change, diff
from rules.strategy import Strategy

from . import authoring, document, forms, lifecycle, records, versions
from .authoring import Published
from .records import StrategyRow

ENDINGS = (".yaml", ".yml", ".json")
Step = Literal["create", "publish", "unchanged", "archive", "left"]


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with one strategy. `revision` is the one that was looked at, None for a new strategy;
    'publish' without `changes` puts a draft live as it stands; 'left': live, in no file, and left alone."""

    key: str
    step: Step
    file: str | None
    revision: int | None
    strategy: Strategy | None
    changes: tuple[Change, ...]


def export(session: Session, shop_id: UUID) -> dict[str, str]:
    """File names with their content, of every strategy that is live or paused."""
    rows = [row for row in records.list_strategies(session, shop_id) if row.version is not None]
    return {f"{row.key}.yaml": document.write(records.read(row.definition).to_dict()) for row in rows}


def plan(session: Session, shop: Shop, files: Mapping[str, str | bytes], *, prune: bool = False) -> list[Planned]:
    """What applying `files` (content by name) would do, by key; nothing is written. With `prune`, what is live and in
    no file is to be archived.

    Raises Rejected, with everything that is wrong in `errors`, each place told as 'file: path'; Conflict for the key
    of an archived strategy, or where somebody's draft stands in the way.
    """
    written = _read(session, shop.id, files)
    rows = {row.key: row for row in records.list_strategies(session, shop.id)}
    found = [_plan_file(session, shop, rows.get(key), file, made) for key, (file, made) in written.items()]
    gone: Step = "archive" if prune else "left"
    found += [
        Planned(row.key, gone, None, row.revision, None, ())
        for row in rows.values()
        if row.version is not None and row.key not in written
    ]
    return sorted(found, key=lambda one: one.key)


def apply(
    session: Session, shop: Shop, planned: Sequence[Planned], *, at: datetime, actor: str, note: str = "",
    in_flight: authoring.InFlight = "finish", publish: bool = True,
) -> list[Published]:  # fmt: skip
    """Do what was planned, in this one transaction; without `publish`, leave drafts. `at` is system time.

    Raises Conflict when a strategy has changed since the plan, or may not be published without an approval.
    """
    done = []
    for one in sorted(planned, key=lambda found: found.key):
        if one.step == "archive" and publish:
            lifecycle.move(session, shop, one.key, "archived", at=at, actor=actor, expected_revision=one.revision)
        elif one.step in ("create", "publish") and one.strategy is not None:
            row = _write(session, shop, one, one.strategy, at=at, actor=actor)
            if publish:
                done.append(
                    authoring.publish(
                        session,
                        shop,
                        one.key,
                        at=at,
                        actor=actor,
                        note=note,
                        in_flight=in_flight,
                        expected_revision=row.revision,
                    )  # fmt: skip
                )
    return done


def _write(session: Session, shop: Shop, one: Planned, strategy: Strategy, *, at: datetime, actor: str) -> StrategyRow:
    if one.step == "create":
        return authoring.create(session, shop, strategy, at=at, actor=actor)
    row = records.hold(session, shop.id, one.key, expected_revision=one.revision)
    draft = versions.in_state(session, shop.id, row.id, "draft")
    if draft is not None and records.read(draft.definition) == strategy:
        return row  # it is what stands there: its author stays its author
    return authoring.save_draft(session, shop, one.key, strategy, at=at, actor=actor)


def _read(session: Session, shop_id: UUID, files: Mapping[str, str | bytes]) -> dict[str, tuple[str, Strategy]]:
    """Each strategy by its key, with its file. The files may speak of each other."""
    raw: dict[str, Any] = {}
    errors: list[dict[str, str]] = []
    for name, content in sorted(files.items()):
        try:
            raw[name] = document.read(content, name=name)
        except Rejected as error:
            errors.append({"where": error.where or name, "reason": error.detail})
    keys = [one["key"] for one in raw.values() if isinstance(one, dict) and isinstance(one.get("key"), str)]
    words = forms.vocabulary_for(session, shop_id, keys)
    made: dict[str, tuple[str, Strategy]] = {}
    for name, one in raw.items():
        found = forms.problems(one, words)
        errors += [{"where": f"{name}: {problem.where}", "reason": problem.reason} for problem in found]
        if found:
            continue
        strategy = forms.read(one, words)
        if strategy.key in made:
            other = made[strategy.key][0]
            errors.append({"where": f"{name}: key", "reason": f"{strategy.key!r} is written in {other} too"})
        made[strategy.key] = (name, strategy)
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise Rejected(f"{first['reason']}{more}", code="strategy", where=first["where"], errors=errors)
    return made


def _plan_file(session: Session, shop: Shop, row: StrategyRow | None, file: str, strategy: Strategy) -> Planned:
    if row is None:
        return Planned(strategy.key, "create", file, None, strategy, tuple(diff(None, strategy)))
    if row.state == "archived":
        raise Conflict(f"strategy {row.key!r} is archived; give it another key", where=f"{file}: key")
    draft = versions.in_state(session, shop.id, row.id, "draft")
    edited = records.read(draft.definition) if draft is not None else None
    if row.version is None:
        changes = authoring.compare(edited, strategy)
        return Planned(row.key, "publish", file, row.revision, strategy, changes)
    changes = authoring.compare(records.read(row.definition), strategy)
    if not changes:
        return Planned(row.key, "unchanged", file, row.revision, strategy, ())
    if edited is not None and draft is not None and edited != strategy:
        raise Conflict(
            f"strategy {row.key!r} has a draft of {', '.join(draft.authors)} that is not what the file says; publish or"
            " discard it first",
            code="draft", where=f"{file}: key",
        )  # fmt: skip
    return Planned(row.key, "publish", file, row.revision, strategy, changes)
