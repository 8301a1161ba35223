"""Writes the reference pages that are facts of the code: configuration, permissions, commands, errors, fields.

`python docs/reference/generate.py` writes them, `--check` fails when they are out of date.
"""

from __future__ import annotations

import ast
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


def errors() -> str:
    from operation_agent.kit import errors as tree

    kinds = {
        tree.Rejected: ("400", "the input is wrong, and will be wrong again: change it"),
        tree.Denied: ("401, 403", "nobody known asks (401), or somebody who may not (403)"),
        tree.NotFound: ("404", "what was named does not exist, or not for this caller"),
        tree.Conflict: ("409", "the state forbids it now: read the state, then decide"),
        tree.Retryable: ("503", "the same call may succeed later; `Retry-After` says when"),
    }
    lines = [
        "# Errors",
        NOTE,
        "Every failure over HTTP is a problem document (RFC 9457, `application/problem+json`): `type`, `title`,"
        " `status`, `detail` (what to do), `code` (stable) and, where there is one, `where` (the field, row or index at"
        " fault). On the command line it is one line on standard error; exit code 2 for Rejected, else 1.\n",
        "| kind | status | `code` unless said otherwise | what it means |",
        "|---|---|---|---|",
        *(f"| {kind.__name__} | {status} | `{kind.code}` | {what} |" for kind, (status, what) in kinds.items()),
        "",
        "| `code` | kind | status | from |",
        "|---|---|---|---|",
        *sorted(set(_codes({kind.__name__: status for kind, (status, _) in kinds.items()}))),
    ]
    return "\n".join(lines) + "\n"


def _codes(statuses: dict[str, str]) -> Iterator[str]:
    """Every `code=` that is given where one of the errors is made."""
    root = HERE.parent.parent
    for path in sorted((*root.glob("api/**/*.py"), *root.glob("operation_agent/**/*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in statuses:
                continue
            given = {one.arg: one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)}
            if "code" in given:
                default = "401" if given.get("unauthenticated") else statuses[node.func.id].removeprefix("401, ")
                status = given.get("status", default)
                yield f"| `{given['code']}` | {node.func.id} | {status} | {path.relative_to(root).as_posix()} |"


def fields() -> str:
    from operation_agent.customers.definitions import FEATURES
    from operation_agent.strategies.vocabulary import vocabulary
    from rules.condition import OPERATORS

    known = vocabulary()
    lines = [
        "# Fields and operators of conditions",
        NOTE,
        "A feature is computed as of the triggering event, counting only what had happened by then. What is missing is"
        " missing: comparing it gives *unknown*, which matches nothing, also under `none`.\n",
        "| field | kind | unit or values | how |",
        "|---|---|---|---|",
    ]
    for name, field in sorted(known.fields.items()):
        feature = FEATURES.get(name.removeprefix("customer."))
        values = ", ".join(f"`{one}`" for one in sorted(field.values or ())) or (feature.unit if feature else "")
        lines.append(f"| `{name}` | {field.kind} | {values} | {_cell(feature.rule) if feature else ''} |")
    lines += ["", "| operator | compares |", "|---|---|"]
    lines += [f"| `{name}` | {', '.join(sorted(kinds - {'any'}))} |" for name, kinds in OPERATORS.items()]
    lines += ["", "| event | its own properties |", "|---|---|"]
    for name, properties in sorted(known.events.items()):
        lines.append(f"| `{name}` | {', '.join(f'`{one}`' for one in sorted(properties))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


PAGES = {
    "configuration.md": configuration,
    "permissions.md": permissions,
    "cli.md": command_line,
    "errors.md": errors,
    "fields.md": fields,
}


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
