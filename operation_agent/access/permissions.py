"""What a caller may be allowed to do: the catalogue that keys' scopes and routes' requirements are written in."""

from __future__ import annotations

from collections.abc import Iterable

from operation_agent.kit.errors import Rejected

EVERYTHING = "*"

PERMISSIONS: dict[str, str] = {
    "events:write": "send tracking events",
    "events:read": "see imports and events that could not be processed",
    "events:replay": "process failed events again",
    "imports:write": "import files of past orders and events",
    "shops:read": "see shops and their settings",
    "shops:write": "create shops, change settings, move a sandbox's clock",
    "customers:read": "see customers, their features and their history",
    "customers:write": "change a customer's consent or suppression",
    "clusterings:read": "see clusterings and clusters",
    "clusterings:write": "start a clustering",
    "strategies:read": "see strategies and rules",
    "strategies:write": "start, pause and change strategies and rules",
    "segments:read": "see segments and who is in them",
    "segments:write": "create and change segments",
    "campaigns:read": "see campaigns and their progress",
    "campaigns:write": "prepare, start, pause and cancel campaigns",
    "approvals:read": "see what waits for an approval",
    "approvals:write": "approve or reject what somebody else asked for",
    "decisions:read": "see decisions and their receipts, rehearse and replay them",
    "actions:read": "see actions, attempts, coupons and budgets",
    "actions:write": "approve, cancel and resolve actions; change budgets",
    "effects:read": "see effects and the profit ledger",
    "effects:write": "ask for a new comparison",
    "metrics:read": "read Prometheus metrics from another machine",
    "audit:read": "see who did what",
    "integrations:read": "see integrations, without their secrets",
    "integrations:write": "connect and change integrations",
    "storefront:read": "see the shop's catalogue, syncs and changes",
    "storefront:write": "sync with the shop, change prices, products, pages and codes there, and take it back",
    "privacy:read": "see requests for data and erasure, and fetch an export",
    "privacy:write": "ask for a customer's data or their erasure",
    "keys:write": "see, create and revoke API keys",
    "users:write": "see, create and disable users",
    EVERYTHING: "everything, now and in later releases",
}
"""Permission -> what it allows."""


def checked_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes, sorted and without repetition. Raises Rejected for none at all or one that does not exist."""
    wanted = sorted(set(scopes))
    if not wanted:
        raise Rejected("a key needs at least one scope, such as events:write", where="scopes")
    for scope in wanted:
        if scope not in PERMISSIONS:
            known = ", ".join(sorted(PERMISSIONS))
            raise Rejected(f"{scope[:60]!r} is not a scope; there are: {known}", code="scope", where="scopes")
    return wanted


def allows(scopes: frozenset[str], permission: str) -> bool:
    return permission in scopes or EVERYTHING in scopes
