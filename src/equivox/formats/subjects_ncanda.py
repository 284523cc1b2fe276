"""NCANDA: ``demographics.csv`` (age and sex at each visit) and ``cahalan.csv`` (drinking class), and a folder of scans.

The two tables name visits differently: ``baseline``, ``followup_1y``, ... in the first, 0, 1, ... in the second. Rows
of another arm than ``standard`` are left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.subjects import Subject, SubjectTable, age_of, ordered, scan_files, sex_of, text_of
from equivox.formats.tables import read_table

PERSON = re.compile(r"NCANDA_S\d+")
ARM = "standard"


def read(root: Path, images: Path | None, kind: str) -> SubjectTable:
    """Subjects of NCANDA."""
    folder = root.parent if root.is_file() else root
    table = root if root.is_file() else folder / "demographics.csv"
    rows = read_table(table, required=["subject", "visit", "visit_age", "sex"])
    notes = [
        f"NCANDA: age is visit_age; rows of another arm than {ARM} are left out; the diagnosis is the Cahalan class."
    ]
    skipped: list[tuple[str, str]] = []
    classes = _classes(folder / "cahalan.csv", notes)
    scans: dict[tuple[str, int], Path] = {}
    for path in scan_files(images or folder):
        person, visit = PERSON.findall(path.as_posix()), visit_number(path.as_posix())
        if not person or visit is None:
            skipped.append((path.name, "has no NCANDA_S... and visit (baseline, followup_1y, ...) in its path"))
        elif (person[-1], visit) in scans:
            skipped.append((path.name, f"is a further scan of {person[-1]}, visit {visit}"))
        else:
            scans[person[-1], visit] = path
    found = []
    for row in rows:
        name, visit = row.text("subject"), visit_number(row.cells["visit"])
        who = f"{name} {row.cells['visit']}"
        if visit is None:
            skipped.append((who, f"has the visit {row.cells['visit']!r}, which is none that is known"))
        elif text_of(row.cells.get("arm", ARM)) not in ("", ARM):
            skipped.append((who, f"is of the arm {row.cells['arm']}"))
        elif (name, visit) not in scans:
            skipped.append((who, "has no scan"))
        else:
            subject = Subject(
                id=name,
                session=visit_name(visit),
                path=scans[name, visit],
                age=age_of(row.cells["visit_age"], who, notes),
                sex=sex_of(row.cells["sex"]),
                diagnosis=classes.get((name, visit), ""),
                group=text_of(row.cells.get("family_id", "")) or name,
                values=dict(row.cells),
            )
            found.append((subject, float(visit)))
    if not found:
        raise InputError(f"{images or folder} holds no scan of a visit in {table}; give the scans' folder (--images).")
    return SubjectTable(root, "ncanda", ordered(found), tuple(notes), tuple(skipped))


def _classes(table: Path, notes: list[str]) -> dict[tuple[str, int], str]:
    """Drinking class by person and visit."""
    if not table.is_file():
        notes.append(f"{table} is not there; drinking classes are not known.")
        return {}
    found = {}
    for row in read_table(table, required=["subject", "visit", "cahalan"]):
        visit = visit_number(row.cells["visit"])
        if visit is not None and text_of(row.cells["cahalan"]):
            found[row.text("subject"), visit] = text_of(row.cells["cahalan"])
    return found


def visit_number(text: str) -> int | None:
    """0 for baseline, n for the follow-up after n years, from a cell or from a path.

    >>> visit_number("followup_3y"), visit_number("baseline"), visit_number("2"), visit_number("other")
    (3, 0, 2, None)
    """
    cell = text.strip()
    if re.fullmatch(r"\d+(\.0)?", cell):
        return int(float(cell))
    years = re.findall(r"followup_(\d+)y", cell)
    if years:
        return int(years[-1])
    return 0 if "baseline" in cell else None


def visit_name(number: int) -> str:
    """What a visit is called in the demographics."""
    return "baseline" if number == 0 else f"followup_{number}y"
