"""Shopify's bulk operations: an export that Shopify prepares by itself and gives as one JSONL file.

A bulk query takes no variables, at most five connections, two levels deep, each by `edges { node }`, with the `id` of
every parent, and no connection within a list; its result is kept for seven days, and an app runs at most five at a
time in a shop (https://shopify.dev/docs/api/usage/bulk-operations/queries). A test holds our documents to this.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from integrations.shopify import documents
from integrations.shopify.client import Shopify
from integrations.shopify.errors import Uncertain, Unreachable, UserErrors
from operation_agent.storefront.protocol import Export, ExportBusy, SyncKind

DOCUMENTS: dict[SyncKind, str] = {
    "products": "bulk_products",
    "collections": "bulk_collections",
    "inventory": "bulk_inventory",
    "customers": "bulk_customers",
    "orders": "bulk_orders",
    "discounts": "bulk_discounts",
}
ALONE: frozenset[SyncKind] = frozenset({"customers", "inventory"})
"""Kinds each of whose lines says all that is needed of it: they need not be grouped, which costs Shopify time."""

EVERYTHING = "(query: \"updated_at:>='1970-01-01T00:00:00Z'\")"
"""Stands once in every document: the filter in whose place another goes, or none."""

_TIMEOUT = timedelta(seconds=30)
_RUNNING = ("CREATED", "RUNNING", "CANCELING")
_WHY = {
    "ACCESS_DENIED": "Shopify did not let the app read this: grant the scopes it needs, connect the shop again, then"
    " ask for the sync again",
    "INTERNAL_SERVER_ERROR": "Shopify had an internal error while it prepared the export",
    "TIMEOUT": "Shopify took too long to prepare the export",
}


def document(kind: SyncKind, since: datetime | None) -> str:
    """The bulk query of a kind, for what changed since an instant; None: for everything."""
    whole = documents.read(DOCUMENTS[kind])
    if since is None:
        return whole.replace(EVERYTHING, "")
    return whole.replace(EVERYTHING, f"(query: \"updated_at:>='{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}'\")")


def start_export(client: Shopify, kind: SyncKind, *, since: datetime | None) -> Export:
    """Have Shopify prepare it. An operation that may or may not have been started is asked for again: one too many
    harms nobody. Raises ExportBusy while as many as may be are running, and the errors of the client."""
    variables = {"query": document(kind, since), "grouped": kind not in ALONE}
    try:
        made = client.mutate("bulk_operation_run_query", variables, timeout=_TIMEOUT)
    except Uncertain as error:
        raise Unreachable(error.detail) from None
    except UserErrors as error:
        if error.has("OPERATION_IN_PROGRESS", "LIMIT_REACHED"):
            raise ExportBusy(error.detail, retry_after=timedelta(seconds=30)) from None
        raise
    return Export(operation_id=str(made["bulkOperation"]["id"]))


def check_export(client: Shopify, kind: SyncKind, operation_id: str) -> Export:
    """How far it is. Raises the errors of the client."""
    node = client.query("bulk_operation", {"id": operation_id})["bulkOperation"]
    if node is None:
        return Export(operation_id, failed="Shopify does not know the export any more")
    status = node["status"]
    total = _number(node, "objectCount" if kind in ALONE else "rootObjectCount")
    if status in _RUNNING:
        return Export(operation_id, total=total)
    if status == "COMPLETED":
        return Export(operation_id, ready=True, url=node["url"], total=total, size=_number(node, "fileSize"))
    if status == "FAILED":
        code = node.get("errorCode")
        return Export(operation_id, failed=_WHY.get(code, f"Shopify says {code}"), again=code != "ACCESS_DENIED")
    if status == "CANCELED":
        return Export(operation_id, failed="somebody cancelled the export at Shopify", again=False)
    return Export(operation_id, failed=f"Shopify says the export is {status.lower()}")  # EXPIRED: after seven days


def cancel_export(client: Shopify, operation_id: str) -> None:
    """Raises UserErrors when it is over already, and the errors of the client."""
    client.mutate("bulk_operation_cancel", {"id": operation_id})


def _number(node: dict[str, Any], name: str) -> int | None:
    """UnsignedInt64 is a string in JSON, since it may be larger than 2^53."""
    value = node.get(name)
    return int(value) if value is not None else None
