"""The whole loop on real purchase histories, by the same doors as any shop's: import, HTTP API, webhooks, workers.

The sandbox shop's customers continue the CDNOW histories (simulator/); the agent sees what a shop would send it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.console import Console
from operation_agent.kit.clock import monotonic
from operation_agent.kit.errors import Conflict, Retryable
from operation_agent.kit.settings import settings

START = datetime(1998, 7, 1, tzinfo=UTC)
"""The CDNOW histories end on 1998-06-30; the sandbox's clock starts the day after."""

STRATEGIES = ("conversion", "retention", "repurchase", "win_back")
_READY_WITHIN = 90.0
_DRAINED_WITHIN = 600.0


@dataclass(frozen=True)
class Sandbox:
    """One demonstration's shop, and the two keys the demonstration uses."""

    slug: str
    url: str
    tracking_key: str
    admin_key: str


def run(*, serve: bool, as_json: bool, days: int, seed: int) -> None:
    """Run the demonstration and print it. Raises an AgentError with what to do when a part of it fails."""
    from cli.demo_report import gather, show

    console = Console(quiet=as_json)
    with _stack(console) as url:
        started = monotonic()
        sandbox = _make_shop(url, seed)
        rows = _import(sandbox, console)
        _settle(sandbox, console, "processing the imported purchases")
        _group(sandbox, console)
        truth = _live(sandbox, console, days=days, seed=seed)
        _compare(sandbox, console)
        report = gather(Api(sandbox), rows=rows, truth=truth, days=days)
        report["proposals"] = _propose(sandbox, console)
        report["seconds"] = round(monotonic() - started, 1)
        if as_json:
            print(json.dumps(report, indent=2, default=str))
        else:
            show(report)
        if serve:
            console.say(f"\nServing {url} (log-in in {settings().data_dir / 'admin.json'}). Ctrl-C stops it.")
            _until_interrupted()


class Api:
    """The agent's HTTP API as any client sees it. Waits out 503s and restarts: nothing may depend on luck."""

    def __init__(self, sandbox: Sandbox):
        import httpx

        self._client = httpx.Client(
            base_url=sandbox.url, headers={"Authorization": f"Bearer {sandbox.admin_key}"}, timeout=30
        )

    def get(self, path: str, **parameters: Any) -> Any:
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, json=body, headers={"Idempotency-Key": secrets.token_hex(12)})

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        return self._call("PUT", path, json=body)

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        import httpx

        end = monotonic() + 60
        while True:
            try:
                answer = self._client.request(method, path, **kwargs)
            except httpx.TransportError as error:
                if monotonic() > end:
                    raise Retryable(f"the API does not answer: {error}") from error
            else:
                if answer.status_code not in (409, 502, 503) or monotonic() > end:
                    break
            time.sleep(0.2)
        if answer.is_error:
            problem = answer.json() if "json" in answer.headers.get("content-type", "") else {}
            raise Conflict(f"{method} {path} answered {answer.status_code}: {problem.get('detail', answer.text[:300])}")
        return answer.json() if answer.content else None


@contextmanager
def _stack(console: Console) -> Iterator[str]:
    """The URL of the running stack of the data folder; starts `opagent up` when there is none, and stops it after."""
    from cli.datafolder import running_stack

    data_dir = settings().data_dir
    running = running_stack(data_dir)
    if running is not None:
        console.say(f"Using the agent that runs at {running.url}")
        yield running.url
        return
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "demo.log"
    environment = {**os.environ, "OPAGENT_DATA_DIR": str(data_dir)}
    if "OPAGENT_PORT" not in os.environ and _taken(settings().host, settings().port):
        environment["OPAGENT_PORT"] = "0"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up"], env=environment, stdout=output, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        with console.step(f"starting PostgreSQL, Redis, API, worker, relay and scheduler (log: {log})"):
            url = _await_ready(process, data_dir, log)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _taken(host: str, port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _await_ready(process: subprocess.Popen, data_dir: Path, log: Path) -> str:
    import httpx

    from cli.datafolder import running_stack

    end = monotonic() + _READY_WITHIN
    while monotonic() < end and process.poll() is None:
        stack = running_stack(data_dir)
        if stack is not None:
            try:
                if httpx.get(f"{stack.url}/readyz", timeout=5).status_code == 200:
                    return stack.url
            except httpx.TransportError:
                pass
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-1500:]
    raise Retryable(f"the agent did not become ready; the end of {log}:\n{tail}")


def _make_shop(url: str, seed: int) -> Sandbox:
    from cli.installation import engine
    from operation_agent.access.keys import create_key
    from operation_agent.kit.clock import SYSTEM
    from operation_agent.store.session import for_shop, for_system
    from operation_agent.store.shops import create_shop, list_shops

    with engine() as connected:
        with for_system(connected) as session:
            taken = {shop.slug for shop in list_shops(session)}
        slug = next(name for name in _names() if name not in taken)
        shop = create_shop(
            connected,
            slug=slug,
            name="CDNOW sandbox",
            currency="USD",
            sandbox=True,
            seed=f"demo-{seed}",
            starts_at=START,
        )
        with for_shop(connected, shop.id) as session:
            tracking, _ = create_key(session, shop.id, name="demo tracking", scopes=["events:write"], at=SYSTEM.now())
            admin, _ = create_key(session, shop.id, name="demo", scopes=["*"], at=SYSTEM.now())
    return Sandbox(slug, url, tracking, admin)


def _names() -> Iterator[str]:
    yield "demo"
    number = 2
    while True:
        yield f"demo-{number}"
        number += 1


def _import(sandbox: Sandbox, console: Console) -> dict[str, Any]:
    from dataclasses import asdict

    from cli.installation import engine, find_shop
    from operation_agent.events.importing import import_file

    with engine() as connected, console.progress("importing CDNOW purchases") as progress:
        return asdict(import_file(connected, find_shop(connected, sandbox.slug), "cdnow", progress=progress))


def _settle(sandbox: Sandbox, console: Console, what: str) -> None:
    """Wait until the workers have nothing left to do in this shop."""
    api = Api(sandbox)
    end = monotonic() + _DRAINED_WITHIN
    with console.progress(what) as progress:
        most = 0
        while monotonic() < end:
            backlog = api.get(f"/api/shops/{sandbox.slug}/backlog")
            open_work = sum(backlog[part] for part in ("events", "actions_due", "outbox", "running"))
            most = max(most, open_work)
            progress(most - open_work, most)
            if open_work == 0:
                return
            time.sleep(0.1)
    raise Retryable(f"the workers did not finish {what}: {backlog}; see the log")


def _group(sandbox: Sandbox, console: Console) -> None:
    Api(sandbox).post("/api/clusterings", {})
    _settle(sandbox, console, "grouping the customers")


def _live(sandbox: Sandbox, console: Console, *, days: int, seed: int) -> dict[str, Any]:
    """Start the strategies, then let the simulated shop live for `days` days. Returns the simulator's truth."""
    api = Api(sandbox)
    weekly = {"clustering.fit": "15 3 * * mon", "effects.compare": "5 4 * * mon", "segments.refresh": "35 3 * * mon"}
    # proposals are asked for at the end, when there is something to learn from
    schedules = {**weekly, "strategies.propose": None}
    api.patch(f"/api/shops/{sandbox.slug}", {"settings": {"schedules": schedules}})
    for template in STRATEGIES:
        api.post("/api/strategies", {"template": template, "state": "live"})
    with tempfile.TemporaryDirectory(prefix="opagent-simulator-") as folder:
        config, result = Path(folder) / "simulation.json", Path(folder) / "truth.json"
        plan = _connect_providers(api, sandbox) | {"days": days, "seed": seed}
        config.touch(mode=0o600)
        config.write_text(json.dumps(plan))
        _simulate(["--config", str(config), "--json", str(result)], console, days)
        return json.loads(result.read_text())


def _connect_providers(api: Api, sandbox: Sandbox) -> dict[str, Any]:
    """Tell the agent where the simulated providers will be, and both sides the keys they sign with."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    port = _free_port()
    pair = ec.generate_private_key(ec.SECP256R1())
    public = pair.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    shopify_secret = secrets.token_hex(16)
    base_url = f"http://127.0.0.1:{port}"
    sendgrid = {"api_key": secrets.token_hex(16), "webhook_public_key": base64.b64encode(public).decode()}
    shopify = {"access_token": secrets.token_hex(16), "webhook_secret": shopify_secret}
    sender = {"from_email": "shop@example.com", "from_name": "CDNOW sandbox", "settle_seconds": 2}
    api.put("/api/integrations/sendgrid", {"base_url": base_url, "config": sender, "secrets": sendgrid})
    api.put("/api/integrations/shopify", {"base_url": base_url, "secrets": shopify})
    return {
        "base_url": sandbox.url,
        "shop": sandbox.slug,
        "write_key": sandbox.tracking_key,
        "admin_key": sandbox.admin_key,
        "shopify_secret": shopify_secret,
        "sendgrid_private_key": pair.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "providers_port": port,
    }


def _simulate(arguments: list[str], console: Console, days: int) -> None:
    """Run the simulator as a process of its own; it tells each day on its standard error."""
    process = subprocess.Popen([sys.executable, "-m", "simulator", *arguments], stderr=subprocess.PIPE, text=True)
    said: deque[str] = deque(maxlen=20)
    assert process.stderr is not None
    try:
        with console.progress(f"living {days} days") as progress:
            for line in process.stderr:
                said.append(line)
                day = re.match(r"day (\d+):", line)
                if day:
                    progress(int(day.group(1)), days)
        if process.wait() != 0:
            raise Retryable("the simulator stopped: " + "".join(said))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=10)


def _compare(sandbox: Sandbox, console: Console) -> None:
    Api(sandbox).post("/api/effects", {})
    _settle(sandbox, console, "comparing treated with held-out customers")


def _propose(sandbox: Sandbox, console: Console) -> list[dict[str, Any]]:
    """What the agent would start next, best first."""
    api = Api(sandbox)
    api.post("/api/proposals", {})
    _settle(sandbox, console, "proposing strategies for the clusters")
    drafted: list[dict[str, Any]] = api.get("/api/proposals", state="drafted")["items"]
    return sorted(drafted, key=lambda one: -one["prediction"]["profit"])


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _until_interrupted() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
