"""`opagent strategy export` and `apply`: a git folder and the database in step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import AsJson, show_json
from cli.strategies import ACTOR, Exit, Note, ShopName, in_shop, written

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from operation_agent.store.shops import Shop
    from operation_agent.strategies.folder import Planned


def export(
    folder: Annotated[Path, typer.Argument(help="Made when it is not there.")],
    shop: ShopName,
    as_json: AsJson = False,
) -> None:
    """Write what is live or paused into a folder, one file each; a file of a strategy that is gone is left alone."""
    from operation_agent.strategies import folder as folders

    with in_shop(shop) as (session, found):
        files = folders.export(session, found.id)
    folder.mkdir(parents=True, exist_ok=True)
    changed = [name for name, content in files.items() if _replace(folder / name, content)]
    others = sorted(set(_files(folder)) - set(files))
    if as_json:
        show_json({"files": sorted(files), "changed": changed, "others": others})
    else:
        print(f"{len(files)} strategies in {folder}; {len(changed)} files changed")
        for name in others:
            print(f"{folder / name} is of no strategy that is live")


def apply(
    folder: Annotated[Path, typer.Argument(help="Files as `export` writes them.", exists=True, file_okay=False)],
    shop: ShopName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Archive what is live and in no file.")] = False,
    drafts: Annotated[bool, typer.Option("--drafts", help="Leave drafts; publish nothing.")] = False,
    note: Note = "",
    exit_in_flight: Exit = False,
    as_json: AsJson = False,
) -> None:
    """Make what is live what the folder says: shows the difference, asks, then does all of it or nothing."""
    from cli.installation import engine, find_shop
    from operation_agent.journeys.publishing import lead_out
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.store.session import for_shop
    from operation_agent.strategies import folder as folders

    files = {name: (folder / name).read_bytes() for name in _files(folder)}
    with engine() as database:
        found = find_shop(database, shop)
        with for_shop(database, found.id) as session:
            planned = _planned(session, found, files, prune=prune)
        todo = [one for one in planned if one.step not in ("unchanged", "left")]
        if not as_json:
            _show_plan(planned)
        if todo and not dry_run:
            if not yes and (as_json or not typer.confirm(f"apply {len(todo)} changes to {found.slug}?", err=True)):
                typer.echo(
                    "nothing was changed" + ("; --json needs --yes to change something" if as_json else ""), err=True
                )
                raise typer.Exit(1)
            with for_shop(database, found.id) as session:
                at = SYSTEM.now()
                done = folders.apply(
                    session, found, planned, at=at, actor=ACTOR, note=note, publish=not drafts,
                    in_flight="exit" if exit_in_flight else "finish",
                )  # fmt: skip
                for one in done:
                    lead_out(session, found, one, at=at)
    if as_json:
        show_json(
            {
                "applied": bool(todo) and not dry_run,
                "strategies": [
                    {"key": one.key, "step": one.step, "file": one.file, "changes": written(one.changes)}
                    for one in planned
                ],
            }
        )
    elif todo and not dry_run:
        print(f"applied {len(todo)} changes" + ("; they are drafts" if drafts else ""))


def _planned(session: Session, shop: Shop, files: dict[str, bytes], *, prune: bool) -> list[Planned]:
    """The plan; when files do not read, everything that is wrong goes to standard error first."""
    from operation_agent.kit.errors import Rejected
    from operation_agent.strategies import folder

    try:
        return folder.plan(session, shop, files, prune=prune)
    except Rejected as error:
        for one in error.extra.get("errors", [])[1:]:
            typer.echo(f"{one['where']}: {one['reason']}", err=True)
        raise


def _show_plan(planned: Any) -> None:
    said = {
        "create": "new", "publish": "changes", "unchanged": "as it is", "archive": "is archived",
        "left": "is live and in no file; --prune archives it",
    }  # fmt: skip
    for one in planned:
        print(f"{one.key}: {said[one.step]}")
        if one.step == "publish" and not one.changes:
            print("  the draft goes live as it stands")
        for change in one.changes:
            print(f"  {change.words['en']}")


def _files(folder: Path) -> list[str]:
    from operation_agent.strategies.folder import ENDINGS

    return sorted(one.name for one in folder.iterdir() if one.is_file() and one.suffix in ENDINGS)


def _replace(path: Path, content: str) -> bool:
    """Write a file only when it says something else, and never half of it."""
    encoded = content.encode()
    if path.exists() and path.read_bytes() == encoded:
        return False
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(encoded)
    part.replace(path)
    return True
