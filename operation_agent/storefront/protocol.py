"""What a shop system must offer so that the agent can run on it: the extension point for other shops than Shopify.

Owned here, by its consumer; implemented in `integrations/`, one folder a vendor. What it reads comes out as events and
`records`, in the same form whichever way it came in. A shop without one is served by file import and the tracking API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from operation_agent.events.event import Event
from operation_agent.kit.errors import Retryable

from .records import Telling

SyncKind = Literal["products", "collections", "inventory", "customers", "orders", "discounts"]
SYNC_KINDS: tuple[SyncKind, ...] = ("products", "collections", "inventory", "customers", "orders", "discounts")
"""In the order of a first load: what others refer to comes first."""


@dataclass(frozen=True, slots=True)
class Export:
    """A prepared export. `operation_id` is the vendor's; `total` its count of objects so far, as `Exported` counts,
    `size` of the whole result in bytes, once they are known.

    `ready`: `url` can be read (None and ready: there is nothing). `failed` says why there will be no result, `again`
    whether asking anew may help.
    """

    operation_id: str
    ready: bool = False
    url: str | None = None
    total: int | None = None
    size: int | None = None
    failed: str | None = None
    again: bool = True


class ExportBusy(Retryable):
    """The storefront prepares as many exports for us as it will at a time: nothing was asked of it."""

    code = "export_busy"


class ResultExpired(Retryable):
    """The address of an export's result is not good any more: `check_export` has another, or says that it is gone."""

    code = "result_expired"


@dataclass(frozen=True, slots=True)
class Exported:
    """One top-level object of an export, with everything that belongs to it.

    `key` and `updated_at` tell whether what we have is older. `end` is the byte of the file after it: where reading
    goes on. `refused`: it could not be understood, and why. An object too large for memory comes in pieces of which the
    last `is_whole`; until then `end` is the byte before it.
    """

    key: str
    updated_at: datetime | None
    end: int
    events: Sequence[Event] = ()
    tellings: Sequence[Telling] = ()
    refused: str | None = None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Preview:
    """What a change would do: the values now and after it, and what the operator should know first."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that was made. `undo` is all that is needed to take it back, or None with `why_no_undo`; with both, the
    latter says which part of it cannot be taken back."""

    ref: str | None
    after: Mapping[str, Any]
    undo: Mapping[str, Any] | None
    why_no_undo: str | None = None
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ChangeKind:
    """A change the storefront can make. `schema` is the JSON Schema of its parameters; `undoable` or why not."""

    name: str
    labels: Mapping[str, str]
    schema: Mapping[str, Any]
    undoable: bool
    why_no_undo: str | None = None
    scopes: Sequence[str] = field(default_factory=tuple)


class Changes(Protocol):
    """What a storefront can change; `operation_agent.storefront.kinds` says what each change takes.

    Each call raises the kit's errors: Rejected (refused; what the shop says of each field stands in `extra["errors"]`),
    NotFound (what is to be changed is not there), Conflict (somebody else has changed it), Retryable (not done, try
    later), Denied (token or scope). Anything else means that it may have been done: then `is_applied` is asked, never
    blind. Every call may be made again with the same key: it looks first what is done already.
    """

    def kinds(self) -> Sequence[str]: ...

    def preview(self, kind: str, parameters: Mapping[str, Any]) -> Preview: ...

    def apply(self, kind: str, parameters: Mapping[str, Any], before: Mapping[str, Any], *, key: str) -> Applied:
        """Make the change if the values are still those of `before`. `key` is stable over every attempt at it."""
        ...

    def is_applied(
        self, kind: str, parameters: Mapping[str, Any], before: Mapping[str, Any], *, key: str
    ) -> Applied | None:
        """Whether it was made, after an uncertain call; None: no, or only in part."""
        ...

    def undo(self, kind: str, undo: Mapping[str, Any], *, key: str, force: bool = False) -> Mapping[str, Any]:
        """Take it back; returns the values then. Raises Conflict when somebody else has changed them since, unless
        `force`."""
        ...


class Exports(Protocol):
    """How everything of a kind is read. Raises the kit's errors."""

    def start_export(self, kind: SyncKind, *, since: datetime | None) -> Export:
        """Ask for everything of a kind (changed since then). Raises ExportBusy while other exports run."""
        ...

    def check_export(self, kind: SyncKind, operation_id: str) -> Export:
        """How far the export of a kind is."""
        ...

    def cancel_export(self, operation_id: str) -> None: ...

    def read_export(self, kind: SyncKind, url: str, *, offset: int, received_at: datetime) -> Iterator[Exported]:
        """Stream the objects of an export from a byte on (of the file as it is when not compressed), in order.

        Raises Retryable when the connection breaks or the file ends too early, ResultExpired for an address that is
        not good any more.
        """
        ...


class Storefront(Exports, Protocol):
    """One shop's connection. Thread-safe. Raises the kit's errors; never keeps state that a restart would lose."""

    vendor: str

    def changes(self) -> Changes: ...

    def close(self) -> None: ...
