"""Tables in files, whatever wrote them: CSV (any delimiter, UTF-8, UTF-16 or GB18030), .xlsx, Parquet, CDNOW's text.

`open_table` looks at the file once (format, encoding, digest) and says what columns it has; `Table.rows` then reads it
as a stream, each row with the line it stands on. What cannot be read as a row comes as a Fault with its line, so that
nothing is dropped unsaid. Raises Rejected, with what to do, for a file that is no table.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from operation_agent.kit.errors import Rejected

_BLOCK = 1 << 20
_LONGEST_FIELD = 1 << 20
_CDNOW_COLUMNS = ("customer_id", "date", "number_of_cds", "dollar_value")
_CDNOW_LINE = re.compile(r"\s*\d+\s+(19|20)\d{6}\s+\d+\s+\d+\.\d+\s*")
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]+)(\d+):([A-Z]+)(\d+)"')


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is not a row, and why."""

    reason: str
    raw: Sequence[str] = ()


Row = Sequence[Any] | Fault


@dataclass(frozen=True, slots=True)
class Table:
    """`columns` by name; `rows()` starts over each time: (line, values | Fault), lines from 1 as a person counts.

    `total` is about how many rows there are, when that is known before reading. `sha256` is of the file's
    content, unpacked if it is a .gz.
    """

    columns: tuple[str, ...]
    rows: Callable[[], Iterator[tuple[int, Row]]]
    total: int | None
    sha256: bytes


def find_cdnow() -> Path:
    """The CDNOW purchase histories in the installed wheel `lifetimes`, which is looked for and never imported.

    Raises Rejected with what to install.
    """
    spec = find_spec("lifetimes")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "CDNOW_master.txt"
        if path.is_file():
            return path
    raise Rejected("the CDNOW data is not installed: `pip install --no-deps lifetimes` brings the file", code="cdnow")


ENCODINGS = ("utf-8-sig", "gb18030")
"""What text without a byte order mark of UTF-16 may be encoded in, the likeliest first."""


def open_table(path: Path, *, sheet: str | None = None, encodings: Sequence[str] = ENCODINGS) -> Table:
    """Look at a file and tell its columns. `sheet` names one of an .xlsx (absent: the first)."""
    _check_file(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return _parquet(path)
    if magic == b"PK\x03\x04":
        return _xlsx(path, sheet)
    if magic == b"\xd0\xcf\x11\xe0":
        raise Rejected(f"{path.name} is an Excel file of before 2007; save it as .xlsx or CSV", code="file_format")
    return _text(path, encodings)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise Rejected(f"{path} is a folder; name one file", code="file", where=str(path))
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise Rejected(f"there is no file {path}", code="file", where=str(path)) from None
    except OSError as error:
        raise Rejected(f"{path} cannot be read: {error.strerror}", code="file", where=str(path)) from None
    if size == 0:
        raise Rejected(f"{path.name} is empty", code="file_empty", where=str(path))


# -- text ---------------------------------------------------------------------------------------------------------


def _open_bytes(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")  # type: ignore[return-value]


def _text(path: Path, encodings: Sequence[str]) -> Table:
    sha256, lines, encoding = _survey(path, encodings)

    def read() -> IO[str]:
        return io.TextIOWrapper(_open_bytes(path), encoding=encoding, newline="")

    with closing(read()) as file:
        head = [file.readline(_LONGEST_FIELD) for _ in range(3)]
    if any(_CDNOW_LINE.fullmatch(line) for line in head[:2]):
        headed = 0 if _CDNOW_LINE.fullmatch(head[0]) else 1
        return Table(_CDNOW_COLUMNS, lambda: _cdnow_rows(read, headed), lines - headed, sha256)
    delimiter = _delimiter(head[0], path)
    columns = _names(next(csv.reader([head[0]], delimiter=delimiter)), path)
    return Table(columns, lambda: _csv_rows(read, delimiter, len(columns)), max(lines - 1, 0), sha256)


def _survey(path: Path, encodings: Sequence[str]) -> tuple[bytes, int, str]:
    """Digest, number of lines, and encoding, in one pass: the first in which everything decodes."""
    hasher, lines, last = hashlib.sha256(), 0, b"\n"
    decoders: dict[str, codecs.IncrementalDecoder] | None = None
    try:
        with closing(_open_bytes(path)) as file:
            while block := file.read(_BLOCK):
                decoders = _decoders(block, encodings) if decoders is None else decoders
                hasher.update(block)
                lines += block.count(b"\n")
                last = block
                decoders = {name: decoder for name, decoder in decoders.items() if _decodes(decoder, block)}
    except (OSError, EOFError, zlib.error) as error:
        raise Rejected(f"{path.name} is damaged: {error}", code="file_format") from None
    fitting = [name for name, decoder in (decoders or {}).items() if _decodes(decoder, b"", final=True)]
    if not fitting or (fitting[0] != "utf-16" and b"\0" * 8 in last):
        raise Rejected(
            f"{path.name} is neither a table we know (.csv, .xlsx, .parquet) nor text in UTF-8 or GB18030 (GBK);"
            " save it as CSV in UTF-8",
            code="encoding",
        )
    return hasher.digest(), lines + (not last.endswith(b"\n")), fitting[0]


def _decoders(first: bytes, encodings: Sequence[str]) -> dict[str, codecs.IncrementalDecoder]:
    """What the text may be encoded in, by its first bytes, the likeliest first."""
    marked = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return {name: codecs.getincrementaldecoder(name)() for name in (["utf-16"] if marked else encodings)}


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(head: str, path: Path) -> str:
    unquoted = re.sub(r'"[^"]*"', "", head)
    found = max(",;\t|", key=unquoted.count)
    if found not in unquoted:
        raise Rejected(
            f"the first line of {path.name} has one column only: {head.strip()[:60]!r}; a table has a line of column"
            " names separated by commas, semicolons, tabs or |",
            code="no_columns",
        )
    return found


def _names(header: Sequence[Any], path: Path) -> tuple[str, ...]:
    names = tuple("" if name is None else str(name).strip() for name in header)
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise Rejected(f"{path.name} has two columns named {repeated[0]!r}; rename one", code="columns")
    if not any(names):
        raise Rejected(f"the first line of {path.name} has no column names", code="no_columns")
    return names


def _csv_rows(read: Callable[[], IO[str]], delimiter: str, width: int) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_LONGEST_FIELD)
    with closing(read()) as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, Fault(f"not a line of CSV ({error}); a quote may not be closed")
                continue
            if len(values) == width:
                yield line, values
            elif values:
                yield line, Fault(f"has {len(values)} fields where the header has {width}", values)


def _cdnow_rows(read: Callable[[], IO[str]], headed: int) -> Iterator[tuple[int, Row]]:
    with closing(read()) as file:
        for line, raw in enumerate(file, 1):
            values = raw.split()
            if line <= headed or not values:
                continue
            yield line, values if len(values) == 4 else Fault(f"has {len(values)} fields where 4 belong", values)


# -- spreadsheets and Parquet -------------------------------------------------------------------------------------


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _xlsx(path: Path, sheet: str | None) -> Table:
    import zipfile

    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise Rejected(f"{path.name} is not a readable .xlsx: {error}", code="file_format") from None
    with closing(book):
        names = [page.title for page in book.worksheets]
        if not names or (sheet is not None and sheet not in names):
            raise Rejected(
                f"{path.name} has no sheet {sheet!r}; it has {', '.join(names)}", code="sheet", where="sheet"
            )
        page = book[sheet or names[0]]
        first, header = _header(page)
        _refuse_merged(path, page, first)
        # a sheet often says it ends with a column that nobody filled
        while header and header[-1] in (None, ""):
            header = header[:-1]
        columns = _names(header, path)
        total = page.max_row - first if page.max_row else None
        title = page.title
    return Table(columns, lambda: _xlsx_rows(path, title, first, len(columns)), total, _digest(path))


def _header(page: Any) -> tuple[int, tuple[Any, ...]]:
    for line, values in enumerate(page.iter_rows(values_only=True), 1):
        if any(value not in (None, "") for value in values):
            return line, values
    raise Rejected(f"the sheet {page.title!r} is empty", code="file_empty")


def _refuse_merged(path: Path, page: Any, header: int) -> None:
    import zipfile

    with zipfile.ZipFile(path) as archive, archive.open(page._worksheet_path.lstrip("/")) as file:
        rest = b""
        while block := file.read(_BLOCK):
            for match in _MERGED.finditer(rest + block):
                left, top, right, bottom = (piece.decode() for piece in match.groups())
                if int(top) <= header <= int(bottom):
                    raise Rejected(
                        f"the header cells {left}{top}:{right}{bottom} of sheet {page.title!r} are merged, so a column"
                        " has no name of its own; select them, choose Unmerge Cells, and name each column",
                        code="merged_header",
                        where=f"{left}{top}:{right}{bottom}",
                    )
            rest = (rest + block)[-200:]


def _xlsx_rows(path: Path, sheet: str, header: int, width: int) -> Iterator[tuple[int, Row]]:
    from openpyxl import load_workbook

    with closing(load_workbook(path, read_only=True, data_only=True)) as book:
        rows = book[sheet].iter_rows(min_row=header + 1, max_col=width, values_only=True)
        for line, values in enumerate(rows, header + 1):
            if any(value not in (None, "") for value in values):
                yield line, [*values, *[None] * (width - len(values))]


def _parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            columns, total = tuple(file.schema_arrow.names), file.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise Rejected(f"{path.name} is not a readable Parquet file: {error}", code="file_format") from None
    return Table(_names(columns, path), lambda: _parquet_rows(path), total, _digest(path))


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    from pyarrow.parquet import ParquetFile

    line = 0
    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=10_000):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                line += 1
                yield line, values
