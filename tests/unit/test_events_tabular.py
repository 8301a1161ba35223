"""Files as tables: encodings, delimiters, spreadsheets, Parquet, and what is not a table."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operation_agent.events import tabular
from operation_agent.events.tabular import Fault, open_table
from operation_agent.kit.errors import Rejected

pytestmark = pytest.mark.unit


def written(folder: Path, data: bytes | str, name: str = "orders.csv") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


CHINESE = "客户编号,日期,实付金额\n王小明,2026-01-02,12.50\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16"])
def test_every_usual_encoding_reads_the_same(tmp_path, encoding):
    table = open_table(written(tmp_path, CHINESE.encode(encoding)))
    assert table.columns == ("客户编号", "日期", "实付金额")
    assert list(table.rows()) == [(2, ["王小明", "2026-01-02", "12.50"])]


@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_the_delimiter_is_seen_in_the_first_line(tmp_path, delimiter):
    table = open_table(written(tmp_path, delimiter.join(["a", '"b,;b"', "c"]) + "\n" + delimiter.join("123") + "\n"))
    assert table.columns == ("a", "b,;b", "c")
    assert list(table.rows()) == [(2, ["1", "2", "3"])]


def test_every_line_is_a_row_or_a_fault_with_its_number(tmp_path):
    table = open_table(written(tmp_path, 'a,b\n1,"two\nlines"\n\n1\n1,2,3\n5,6'))
    assert list(table.rows()) == [
        (2, ["1", "two\nlines"]),
        (5, Fault("has 1 fields where the header has 2", ["1"])),
        (6, Fault("has 3 fields where the header has 2", ["1", "2", "3"])),
        (7, ["5", "6"]),
    ]


def test_a_packed_file_reads_as_its_content_and_has_its_digest(tmp_path):
    plain = open_table(written(tmp_path, CHINESE))
    packed = open_table(written(tmp_path, gzip.compress(CHINESE.encode()), "orders.csv.gz"))
    assert list(packed.rows()) == list(plain.rows())
    assert packed.sha256 == plain.sha256


def test_cdnows_text_is_known_by_its_look(tmp_path):
    data = " customer_id  date number_of_cds  dollar_value\n 00001 19970101  1   11.77\n 00002 19970112  1   12.00\n"
    table = open_table(written(tmp_path, data, "CDNOW_master.txt"))
    assert table.columns == ("customer_id", "date", "number_of_cds", "dollar_value")
    assert list(table.rows()) == [(2, ["00001", "19970101", "1", "11.77"]), (3, ["00002", "19970112", "1", "12.00"])]
    assert table.total == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "file_empty"),
        (b"customer\n1\n", "no_columns"),
        (b",,\n1,2,3\n", "no_columns"),
        (b"a,a\n1,2\n", "columns"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe\xff\xff" + bytes(range(256)), "encoding"),
        (b"PK\x03\x04 not a zip", "file_format"),
        (b"PAR1 not parquet", "file_format"),
        (b"\xd0\xcf\x11\xe0 old excel", "file_format"),
        (gzip.compress(b"a,b\n" * 1000)[:30], "file_format"),
    ],
)
def test_what_is_no_table_says_why(tmp_path, data, code):
    with pytest.raises(Rejected) as caught:
        open_table(written(tmp_path, data))
    assert caught.value.code == code


def test_a_folder_and_a_missing_file_say_so(tmp_path):
    with pytest.raises(Rejected, match="is a folder"):
        open_table(tmp_path)
    with pytest.raises(Rejected, match="there is no file"):
        open_table(tmp_path / "missing.csv")


@given(
    st.one_of(
        st.binary(min_size=1, max_size=300), st.binary(max_size=200).map(lambda data: b"\xff\xfea\0,\0b\0\n\0" + data)
    )
)
def test_no_bytes_at_all_break_the_reading(data):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            table = open_table(written(Path(folder), data))
            for line, row in table.rows():
                assert line >= 1
                assert isinstance(row, Fault) or len(row) == len(table.columns)
        except Rejected:
            pass


def workbook(folder: Path, rows, *, merge: str | None = None) -> Path:
    from openpyxl import Workbook

    book = Workbook()
    page = book.active
    page.title = "Orders"
    for row in rows:
        page.append(row)
    if merge:
        page.merge_cells(merge)
    book.create_sheet("Empty")
    path = folder / "orders.xlsx"
    book.save(path)
    return path


def test_a_spreadsheet_reads_with_its_row_numbers(tmp_path):
    day = datetime(2026, 1, 2, 3, 4, 5)
    table = open_table(workbook(tmp_path, [[], ["customer", "date", "amount"], [1, day, 2.5], [], [2, day, None]]))
    assert table.columns == ("customer", "date", "amount")
    assert list(table.rows()) == [(3, [1, day, 2.5]), (5, [2, day, None])]


def test_merged_header_cells_are_named_with_what_to_do(tmp_path):
    path = workbook(tmp_path, [["customer", None, "date"], [1, 2, 3]], merge="A1:B1")
    with pytest.raises(Rejected, match="A1:B1.*Unmerge") as caught:
        open_table(path)
    assert (caught.value.code, caught.value.where) == ("merged_header", "A1:B1")


def test_merged_cells_below_the_header_do_no_harm(tmp_path):
    table = open_table(workbook(tmp_path, [["customer", "date"], [1, 2], [3, 4]], merge="A2:A3"))
    assert list(table.rows()) == [(2, [1, 2]), (3, [None, 4])]


def test_a_sheet_can_be_chosen(tmp_path):
    path = workbook(tmp_path, [["a", "b"]])
    with pytest.raises(Rejected, match="no sheet 'No'; it has Orders, Empty"):
        open_table(path, sheet="No")
    with pytest.raises(Rejected, match="empty"):
        open_table(path, sheet="Empty")
    assert open_table(path, sheet="Orders").columns == ("a", "b")


def test_parquet_keeps_its_types(tmp_path):
    import pyarrow
    from pyarrow import parquet

    day = datetime(2026, 1, 2, tzinfo=UTC)
    path = tmp_path / "orders.parquet"
    parquet.write_table(
        pyarrow.table({"customer": [1, 2], "date": [day, day], "amount": [Decimal("1.50"), None]}), path
    )
    table = open_table(path)
    assert (table.columns, table.total) == (("customer", "date", "amount"), 2)
    assert list(table.rows()) == [(1, (1, day, Decimal("1.50"))), (2, (2, day, None))]


def test_the_installed_cdnow_file_is_found_without_importing_its_package():
    import sys

    if tabular.find_spec("lifetimes") is None:
        pytest.skip("the wheel `lifetimes` is not installed")
    assert tabular.find_cdnow().name == "CDNOW_master.txt"
    assert "lifetimes" not in sys.modules


def test_a_missing_cdnow_file_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tabular, "find_spec", lambda _name: None)
    with pytest.raises(Rejected, match="pip install --no-deps lifetimes"):
        tabular.find_cdnow()
