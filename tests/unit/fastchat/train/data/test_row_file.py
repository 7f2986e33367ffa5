"""A JSON list read row by row: the rows, where they stand, and what is refused.

python -m pytest tests/unit/fastchat/train/data/test_row_file.py
"""

import json

import pytest

from fastchat.train.data import rows as row_file
from fastchat.train.data.rows import RowReader, read_rows
from tests.support.training_data import rows

CONTENT = [*rows(5), 123456789, {"text": 'é 漢 \u2028 😀 ] , " \\ [{'}, {}, {"long": "ü" * 300}]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(row_file, "_PIECE", 7)


def dumped(lines):
    """A file as workflow_convert.py writes it, or in other layouts that JSON allows."""
    if lines == "one per line":
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in CONTENT) + "\n]\n"
    if lines == "indented":
        return json.dumps(CONTENT, indent=2, ensure_ascii=False).replace("\n", "\r\n")
    return json.dumps(CONTENT, separators=(",", ":"))


@pytest.mark.parametrize("lines", ["one per line", "indented", "compact"])
def test_rows_are_found_and_can_be_read_again(tmp_path, lines):
    path = tmp_path / "rows.json"
    path.write_bytes(dumped(lines).encode())
    places, found = zip(*read_rows(path), strict=True)
    assert list(found) == CONTENT
    again = RowReader(path)
    path.unlink()
    assert [again(place) for place in reversed(places)] == CONTENT[::-1]


@pytest.mark.parametrize("end", ["\n", "\r\n\r\n", ""])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_row_per_line_and_a_byte_order_mark_are_read(tmp_path, end, mark):
    content, path = (
        [{"conversations": [], "é": i, "long": "漢" * 9} for i in range(3)],
        tmp_path / "r",
    )
    lines = (end or "\n").join(json.dumps(row, ensure_ascii=False) for row in content)
    for text in (lines + end, json.dumps(content, ensure_ascii=False)):
        path.write_bytes((mark + text).encode())
        places, found = zip(*read_rows(path), strict=True)
        assert list(found) == content and [RowReader(path)(place) for place in places] == content


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"a": 1}, {"b": 2', "at byte 18"),
        (b'[{"a": 1} {"b": 2}]', "at byte 10"),
        (b'[{"a": 1},]', "at byte 10"),
        (b'[{"a": 1}] []', "at byte 11"),
        ('[{"é": 1}, nothing]'.encode(), "at byte 12"),
        (b'[{"a": "\xff"}]', "utf-8.*save it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "compressed, so unpack it"),
        (b'{"conversations": []}\n{"conversations": [', "row 1, is not JSON"),
        (b"PK\x03\x04", "compressed, so unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PAR1\x15\x04", "a table of Parquet"),
        (b"\n<!DOCTYPE html><html>", "a web page and not the file"),
        (b'[{"id": ' + b"9" * 5000 + b"}]", "row 0, is not JSON: Exceeds the limit .*digits"),
        ("[]".encode("utf-16-le"), "UTF-16 or no text at all: save it as UTF-8"),
        (b"[" + b"[" * 100_000, "row 0, is nested too deeply"),
        (b" [ ]", "is empty; write it with workflow_convert.py"),
        (b"", "is empty; write it"),
        (b"question\tanswer\n", "must hold a JSON list of rows, or a row per line; write it"),
    ],
)
def test_a_file_that_is_no_list_is_refused_with_the_place(tmp_path, text, message):
    path = tmp_path / "rows.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=message):
        list(read_rows(path))
