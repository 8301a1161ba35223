"""Past orders from a file: `opagent import`. Every row is accepted, a duplicate, or rejected with its line and reason.

Rows go in by chunks, and how far the file has been read is committed together with each chunk: killed anywhere, the
same command goes on where it stopped. The same file under the same mapping a second time changes nothing. The events
enter where all events enter (`intake.commit`) and are processed like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import orjson
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from operation_agent.kit.clock import SYSTEM
from operation_agent.kit.errors import Conflict
from operation_agent.kit.ids import new_id
from operation_agent.store.session import for_shop
from operation_agent.store.shops import Shop

from . import intake, online_retail, online_retail_totals, order_rows, tabular
from .event import Event
from .online_retail_totals import Totals
from .order_rows import OPTIONS, Reading
from .tabular import Fault, Row, Table

CDNOW = "cdnow"
ONLINE_RETAIL = online_retail.NAME
CHUNK = 2_000
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Rejection:
    line: int
    reason: str
    row: list[str]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """Of the whole import, over all its runs: read = accepted + duplicates + rejected, in rows of the file.

    `resumed_from` is how many of them earlier runs had read. `rejections` are the first SHOWN, by line. `totals` are of
    Online Retail, as stored.
    """

    import_id: UUID
    file_name: str
    mapping: dict[str, str]
    read: int
    accepted: int
    duplicates: int
    rejected: int
    resumed_from: int
    rejections: list[Rejection] = field(default_factory=list)
    totals: Totals | None = None


SHOWN = 50


class RowReader(Protocol):
    """Makes events of the rows of one file. `note` is of a row that an earlier run has read: nothing is made of it."""

    def note(self, line: int, values: Sequence[Any]) -> None: ...

    def read(self, line: int, values: Sequence[Any], received_at: datetime) -> Reading: ...


@dataclass(slots=True)
class _Chunk:
    """`stands_for`: rows of the file, of each of `orders`."""

    rows: int = 0
    orders: list[Event] = field(default_factory=list)
    stands_for: list[int] = field(default_factory=list)
    others: list[Event] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


def import_file(
    engine: Engine,
    shop: Shop,
    path: Path | str,
    *,
    mapping: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    preset: str | None = None,
) -> ImportReport:
    """Import orders from a file (.csv, .xlsx, .parquet, CDNOW's text, or the word "cdnow" for the installed data).

    `preset` ONLINE_RETAIL: the file is that data, and the report has its totals. `mapping` is role -> column (see
    `order_rows`, `online_retail`); roles it leaves out are guessed from the column names. `progress` is told rows read
    so far and about how many there are. Raises Rejected when the file, the mapping or the shop is wrong (then nothing
    was written), Conflict when the same file is being imported by another process.
    """
    file = tabular.find_cdnow() if str(path) == CDNOW else Path(path)
    asked = dict(mapping or {})
    is_retail = preset == ONLINE_RETAIL
    if is_retail:
        online_retail.check(shop)
    encodings = online_retail.ENCODINGS if is_retail else tabular.ENCODINGS
    table = tabular.open_table(file, sheet=asked.get("sheet"), encodings=encodings)
    resolve = online_retail.resolve_mapping if is_retail else order_rows.resolve_mapping
    found = resolve(table.columns, asked)
    import_id, position, is_done = _begin(engine, shop, file.name, table.sha256, found)
    tell = progress or (lambda _done, _total: None)
    if not is_done:
        reader = _reader(shop, table, found, is_retail=is_retail)
        _run(engine, shop, import_id, table, reader, position, tell)
    with for_shop(engine, shop.id) as session:
        report = _report(session, shop.id, import_id, found, position)
        if is_retail:
            report = replace(report, totals=online_retail_totals.totals(session, shop.id))
    tell(report.read, report.read)
    return report


def _reader(shop: Shop, table: Table, mapping: Mapping[str, str], *, is_retail: bool) -> RowReader:
    if is_retail:
        return online_retail.Reader(shop, table, mapping, shop.now())
    return order_rows.Reader(shop, table.columns, mapping, table.sha256.hex(), shop.now())


def _begin(engine: Engine, shop: Shop, name: str, sha256: bytes, mapping: dict[str, str]) -> tuple[UUID, int, bool]:
    with for_shop(engine, shop.id) as session:
        row = session.execute(
            text(
                "INSERT INTO imports (shop_id, id, file_name, file_sha256, mapping, state, started_at)"
                " VALUES (:shop, :id, :name, :sha256, CAST(:mapping AS jsonb), 'running', :now)"
                " ON CONFLICT (shop_id, file_sha256, mapping) DO UPDATE SET file_name = EXCLUDED.file_name"
                " RETURNING id, position, state"
            ),
            {
                "shop": shop.id, "id": new_id(), "name": name, "sha256": sha256,
                "mapping": orjson.dumps(mapping).decode(), "now": SYSTEM.now(),
            },
        ).one()  # fmt: skip
    return row.id, row.position, row.state == "done"


def _run(
    engine: Engine, shop: Shop, import_id: UUID, table: Table, reader: RowReader, position: int, tell: Progress
) -> None:
    rows = table.rows()
    for line, row in islice(rows, position):
        if not isinstance(row, Fault):
            reader.note(line, row)
    tell(position, table.total)
    for chunk in _chunks(rows, reader):
        with for_shop(engine, shop.id) as session:
            _commit(session, shop.id, import_id, position, chunk)
        position += chunk.rows
        tell(position, max(table.total, position) if table.total is not None else None)
    with for_shop(engine, shop.id) as session:
        session.execute(
            text("UPDATE imports SET state = 'done', finished_at = :now WHERE shop_id = :shop AND id = :id"),
            {"shop": shop.id, "id": import_id, "now": SYSTEM.now()},
        )


def _chunks(rows: Iterator[tuple[int, Row]], reader: RowReader) -> Iterator[_Chunk]:
    while True:
        chunk, received_at = _Chunk(), SYSTEM.now()
        for line, row in islice(rows, CHUNK):
            chunk.rows += 1
            _take(chunk, reader, line, row, received_at)
        if not chunk.rows:
            return
        yield chunk


def _take(chunk: _Chunk, reader: RowReader, line: int, row: Row, received_at: datetime) -> None:
    if isinstance(row, Fault):
        chunk.rejections.append(Rejection(line, row.reason, _shown(row.raw)))
        return
    reading = reader.read(line, row, received_at)
    if reading.refused is not None:
        chunk.rejections.append(Rejection(line, reading.refused, _shown(row)))
    for event, rows in reading.events:
        if rows:
            chunk.orders.append(event)
            chunk.stands_for.append(rows)
        else:
            chunk.others.append(event)


def _shown(row: Any) -> list[str]:
    """A row as text that any database holds, long fields cut."""
    return ["" if value is None else str(value)[:200].replace("\0", "␀") for value in list(row)[:200]]


def _commit(session: Session, shop_id: UUID, import_id: UUID, position: int, chunk: _Chunk) -> None:
    held = session.execute(
        text("SELECT position FROM imports WHERE shop_id = :shop AND id = :id FOR UPDATE"),
        {"shop": shop_id, "id": import_id},
    ).scalar_one()
    if held != position:
        raise Conflict("another process is importing the same file; wait for it")
    if chunk.rejections:
        session.execute(
            text(
                "INSERT INTO import_rejections (shop_id, import_id, line, reason, row)"
                " SELECT :shop, :id, r.* FROM unnest(CAST(:lines AS bigint[]), CAST(:reasons AS text[]),"
                " CAST(:rows AS jsonb[])) AS r"
            ),
            {
                "shop": shop_id, "id": import_id, "lines": [one.line for one in chunk.rejections],
                "reasons": [one.reason.replace("\0", "␀") for one in chunk.rejections],
                "rows": [orjson.dumps(one.row).decode() for one in chunk.rejections],
            },
        )  # fmt: skip
    # who a customer is before what they ordered, so that both meet one customer
    result = intake.commit(session, shop_id, chunk.others + chunk.orders)
    known = (index - len(chunk.others) for index in result.duplicate_indexes)
    duplicates = sum(chunk.stands_for[index] for index in known if index >= 0)
    session.execute(
        text(
            "UPDATE imports SET position = position + :rows, accepted = accepted + :accepted,"
            " duplicates = duplicates + :duplicates, rejected = rejected + :rejected"
            " WHERE shop_id = :shop AND id = :id"
        ),
        {
            "shop": shop_id, "id": import_id, "rows": chunk.rows, "accepted": sum(chunk.stands_for) - duplicates,
            "duplicates": duplicates, "rejected": len(chunk.rejections),
        },
    )  # fmt: skip


def _report(
    session: Session, shop_id: UUID, import_id: UUID, mapping: dict[str, str], resumed_from: int
) -> ImportReport:
    row = session.execute(
        text(
            "SELECT file_name, position, accepted, duplicates, rejected FROM imports WHERE shop_id = :shop AND id = :id"
        ),
        {"shop": shop_id, "id": import_id},
    ).one()
    rejections = session.execute(
        text(
            "SELECT line, reason, row FROM import_rejections WHERE shop_id = :shop AND import_id = :id"
            " ORDER BY line LIMIT :shown"
        ),
        {"shop": shop_id, "id": import_id, "shown": SHOWN},
    )
    return ImportReport(
        import_id=import_id,
        file_name=row.file_name,
        mapping={role: column for role, column in mapping.items() if role not in (*OPTIONS, "preset")},
        read=row.position,
        accepted=row.accepted,
        duplicates=row.duplicates,
        rejected=row.rejected,
        resumed_from=resumed_from,
        rejections=[Rejection(one.line, one.reason, one.row) for one in rejections],
    )
