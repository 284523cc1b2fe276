"""What is written as a table reads back as it was."""

from __future__ import annotations

from pathlib import Path

from equivox.formats.tables import as_csv, read_table, records_as_csv


def test_a_written_table_is_read_back(tmp_path: Path) -> None:
    text = as_csv(["name", "value", "note"], [["a, b", 1.5, None], ['c "d"', 2, "größe"]])
    assert text.splitlines()[:2] == ["name,value,note", '"a, b",1.5,']
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    rows = read_table(tmp_path / "t.csv", required=["name"])
    assert [row.cells["name"] for row in rows] == ["a, b", 'c "d"']
    assert rows[0].cells["note"] == ""
    assert rows[1].cells["note"] == "größe"


def test_records_follow_the_columns_and_not_their_own_order() -> None:
    records = [{"x": 1, "y": 2}, {"y": 4, "x": 3}]
    assert records_as_csv(records) == "x,y\n1,2\n3,4\n"
    assert records_as_csv(records, ["y"]) == "y\n2\n4\n"
