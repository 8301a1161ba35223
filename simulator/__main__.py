"""`python -m simulator --config simulation.json --json truth.json`: live a simulated shop against a running agent.

Every field of the config file is also an option; an option wins. Secrets belong in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from operation_agent.kit.errors import AgentError

from .agent_client import Access, Agent
from .customers import draw, find_cdnow, read_histories
from .http_server import Server
from .providers import Providers
from .run import Mailboxes, Run
from .truth import Prices

_ACCESS = ("base_url", "shop", "write_key", "admin_key", "shopify_secret", "sendgrid_private_key")


def _options() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help="JSON with any of the following")
    for name in _ACCESS:
        parser.add_argument(f"--{name.replace('_', '-')}", help="PEM" if name.endswith("private_key") else None)
    parser.add_argument("--days", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--customers", type=int, help="only the first so many")
    parser.add_argument("--cdnow", type=Path, help="CDNOW_master.txt, when `lifetimes` is not installed")
    parser.add_argument("--providers-port", type=int, help="serve the fake providers here (default: a free port)")
    parser.add_argument("--providers-url", help="use fake providers that run already")
    parser.add_argument("--margin-rate", type=float)
    parser.add_argument("--message-cost-minor", type=int)
    parser.add_argument("--json", type=Path, help="write the result here instead of to standard output")
    given = vars(parser.parse_args())
    config = given.pop("config", None)
    found = {"days": 28, "seed": 42, "providers_port": 0, "margin_rate": 0.4, "message_cost_minor": 1}
    if config is not None:
        found |= json.loads(config.read_text(encoding="utf-8"))
    found |= given
    missing = [name for name in _ACCESS if not found.get(name)]
    if missing:
        parser.error(f"not given: {', '.join(missing)}")
    return found


def main() -> int:
    options = _options()
    path = options.get("cdnow")
    history = read_histories(find_cdnow(Path(path) if path else None))
    if "customers" in options:
        history = history.first(options["customers"])
    with ExitStack() as stack:
        if options.get("providers_url"):
            mail = Mailboxes(url=options["providers_url"])
        else:
            providers = Providers()
            server = stack.enter_context(Server(providers.handle, port=options["providers_port"]))
            sys.stderr.write(f"fake providers at {server.url}\n")
            mail = Mailboxes(providers)
        agent = Agent(Access(**{name: options[name] for name in _ACCESS}))
        stack.callback(agent.close)
        result = Run(
            agent, mail, draw(history, options["seed"]), options["seed"], options["days"],
            prices=Prices(options["margin_rate"], options["message_cost_minor"]),
            progress=_progress,
        )()  # fmt: skip
    written = json.dumps(result, indent=2) + "\n"
    if "json" in options:
        options["json"].write_text(written, encoding="utf-8")
    else:
        sys.stdout.write(written)
    return 0


def _progress(day: int, counts: dict[str, int]) -> None:
    told = ", ".join(f"{value} {name}" for name, value in counts.items())
    sys.stderr.write(f"day {day + 1}: {told}\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AgentError as error:
        sys.stderr.write(f"{error.detail}\n")
        sys.exit(1)
