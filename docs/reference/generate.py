"""Writes the reference pages that are facts of the code: configuration, permissions, the command line.

`python docs/reference/generate.py` writes them, `--check` fails when they are out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/generate.py; change the code, not this page. -->\n"


def configuration() -> str:
    from operation_agent.kit.settings import Settings

    lines = [
        "# Configuration",
        NOTE,
        "From the environment and nowhere else. `opagent --data-dir`, `up --host` and `up --port` set the same"
        " variables for one run.\n",
        "| variable | default | what |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `OPAGENT_{name.upper()}` | {default} | {_cell(field.description or '')} |")
    return "\n".join(lines) + "\n"


def permissions() -> str:
    from operation_agent.access.permissions import PERMISSIONS

    lines = [
        "# Permissions",
        NOTE,
        "Scopes of API keys; a person who is logged in has all of them. Every route of the API says in the OpenAPI"
        " description (`GET /openapi.json`) which one it needs.\n",
        "| scope | allows to |",
        "|---|---|",
        *(f"| `{name}` | {_cell(what)} |" for name, what in PERMISSIONS.items()),
    ]
    return "\n".join(lines) + "\n"


def command_line() -> str:
    import typer

    from cli.main import app

    root = typer.main.get_command(app)
    lines = [
        "# Command line",
        NOTE,
        "Exit codes: 0 done, 1 failed (the line says why), 2 the input is wrong. `opagent COMMAND --help` says more.\n",
    ]
    for path, command in _commands(root, ["opagent"]):
        lines += [f"## {path}", "", (command.help or "").strip(), ""]
        rows = [
            _parameter(one) for one in command.params if one.name not in ("help",) and not getattr(one, "hidden", False)
        ]
        if rows:
            lines += ["| option | what |", "|---|---|", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command, path: list[str]) -> Iterator[tuple[str, object]]:  # type: ignore[no-untyped-def]
    children = getattr(command, "commands", None)
    if not children:
        yield " ".join(path), command
        return
    for name in sorted(children):
        yield from _commands(children[name], [*path, name])


def _parameter(parameter) -> str:  # type: ignore[no-untyped-def]
    names = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{parameter.name.upper()}`"
    required = " Required." if parameter.required else ""
    return f"| {names} | {_cell(getattr(parameter, 'help', None) or '')}{required} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


PAGES = {"configuration.md": configuration, "permissions.md": permissions, "cli.md": command_line}


def main() -> int:
    stale = [name for name, make in PAGES.items() if not _is_current(HERE / name, make())]
    if "--check" in sys.argv:
        for name in stale:
            sys.stderr.write(f"docs/reference/{name} is out of date; run: python docs/reference/generate.py\n")
        return int(bool(stale))
    for name in stale:
        (HERE / name).write_text(PAGES[name]())
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
