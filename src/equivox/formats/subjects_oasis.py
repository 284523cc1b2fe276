"""OASIS-1, OASIS-2 and OASIS-3: their tables and a folder of scans known by the session's name in their path.

OASIS-1: ``MR2`` is a repeat within 90 days of the same person (a test-retest pair, one group). An empty CDR is not 0:
only below 60 years it counts as a control. OASIS-2: ``MR Delay`` [days] orders the visits. OASIS-3: the age at a scan
is ``AgeatEntry`` plus the days in the session's name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Literal

from equivox.errors import InputError
from equivox.formats.nifti import without_ending
from equivox.formats.subjects import (
    DAYS_PER_YEAR,
    Subject,
    SubjectTable,
    age_of,
    number_of,
    ordered,
    scan_files,
    sex_of,
)
from equivox.formats.tables import Row, read_header, read_table

YOUNG = 60.0
NEAR_DAYS = 365
SESSION = {"oasis1": r"OAS1_\d{4}_MR\d", "oasis2": r"OAS2_\d{4}_MR\d", "oasis3": r"OAS3\d{4}"}


def read(root: Path, images: Path | None, kind: str) -> SubjectTable:
    """Subjects of one of the three."""
    folder = images or (root.parent if root.is_file() else root)
    tables = [root] if root.is_file() else sorted(root.glob("*.csv"))
    if kind == "oasis3":
        return _third(root, folder, sorted((root.parent if root.is_file() else root).glob("*.csv")))
    needed = {"oasis1": {"ID", "M/F", "Age", "CDR"}, "oasis2": {"Subject ID", "MRI ID", "Age", "CDR"}}[kind]
    fitting = [table for table in tables if needed <= set(read_header(table))]
    if not fitting:
        raise InputError(f"{root} holds no table with the columns {', '.join(sorted(needed))}; give it.")
    scans = _by_session(folder, SESSION[kind])
    notes = [
        "OASIS: CDR 0 is CN, above 0 is AD (very mild to moderate dementia)."
        if kind == "oasis2"
        else f"OASIS-1: CDR 0 is CN, above 0 is AD; without CDR only those below {YOUNG:.0f} years count as CN."
    ]
    skipped: list[tuple[str, str]] = []
    column = "ID" if kind == "oasis1" else "MRI ID"
    rows = read_table(fitting[0], required=sorted(needed), unique=[column])
    ages = {row.text(column): age_of(row.cells["Age"], row.text(column), notes) for row in rows}
    found = []
    for row in rows:
        name = row.text(column)
        person, _, session = name.rpartition("_")
        delay = number_of(row.cells.get("Delay", row.cells.get("MR Delay", ""))) or 0.0
        if name not in scans:
            skipped.append((name, f"has no scan in {folder}"))
            continue
        age = ages[name]
        if age is None and ages.get(f"{person}_MR1") is not None:
            age = (ages[f"{person}_MR1"] or 0.0) + delay / DAYS_PER_YEAR
        subject = Subject(
            id=person,
            session=session,
            path=scans[name],
            age=age,
            sex=sex_of(row.cells.get("M/F", "")),
            diagnosis=_by_rating(number_of(row.cells["CDR"]), age if kind == "oasis1" else None),
            group=person,
            values=dict(row.cells),
        )
        found.append((subject, delay + (0.0 if session == "MR1" else 1e-3)))
    if kind == "oasis1" and any(subject.session == "MR2" for subject, _ in found):
        notes.append("OASIS-1: MR2 is a repeat of the same person within 90 days; it stays in the person's group.")
    return _table(root, kind, folder, found, notes, skipped)


def _by_rating(rating: float | None, age: float | None) -> str:
    """CN or AD by the clinical dementia rating; without one CN only for the young, by ``age``."""
    if rating is None:
        return "CN" if age is not None and age < YOUNG else ""
    return "CN" if rating == 0 else "AD"


def _third(root: Path, folder: Path, tables: list[Path]) -> SubjectTable:
    """OASIS-3: demographics, clinical visits, sessions by day."""
    people_table = next((t for t in tables if {"OASISID", "AgeatEntry"} <= set(read_header(t))), None)
    if people_table is None:
        raise InputError(f"{root} holds no table with OASISID and AgeatEntry; give OASIS-3's demographics.")
    people = {
        row.text("OASISID"): row
        for row in read_table(people_table, required=["OASISID", "AgeatEntry"], unique=["OASISID"])
    }
    visits: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for table in tables:
        header = set(read_header(table))
        if {"OASISID", "days_to_visit", "CDRTOT"} <= header:
            for row in read_table(table, required=["OASISID", "days_to_visit", "CDRTOT"]):
                day, rating = number_of(row.cells["days_to_visit"]), number_of(row.cells["CDRTOT"])
                if day is not None and rating is not None:
                    visits[row.text("OASISID")].append((day, rating, row.cells.get("dx1", "").strip()))
    notes = [
        "OASIS-3: age at the scan is AgeatEntry plus the days in the session's name.",
        f"OASIS-3: diagnosis is by CDRTOT of the visit nearest within {NEAR_DAYS} days, else the last before: 0 is CN; "
        "above 0 is AD where dx1 says so, else impaired.",
    ]
    skipped: list[tuple[str, str]] = []
    found = []
    seen: set[tuple[str, float]] = set()
    for path in scan_files(folder):
        names, days = re.findall(r"OAS3\d{4}", path.as_posix()), re.findall(r"(?<=[_-])d(\d{4})(?!\d)", path.as_posix())
        if not names or not days or names[-1] not in people:
            skipped.append((path.name, "has no OASIS-3 person of the table and day (OAS3NNNN, dDDDD) in its path"))
            continue
        if "T1w" not in path.name and "_MR_" not in path.as_posix():
            skipped.append((path.name, "is not named as a T1w scan"))
            continue
        person, when = names[-1], float(days[-1])
        if (person, when) in seen:
            skipped.append((path.name, f"is a further scan of {person} on day {when:.0f}"))
            continue
        seen.add((person, when))
        row = people[person]
        entry = age_of(row.cells["AgeatEntry"], person, notes)
        subject = Subject(
            id=person,
            session=f"d{int(when):04d}",
            path=path,
            age=None if entry is None else entry + when / DAYS_PER_YEAR,
            sex=_sex(row),
            diagnosis=_at_day(visits[person], when),
            group=person,
            values=dict(row.cells),
        )
        found.append((subject, when))
    return _table(root, "oasis3", folder, found, notes, skipped)


def _sex(row: Row) -> Literal["F", "M", ""]:
    """OASIS-3 writes 1 for men and 2 for women."""
    cell = row.cells.get("GENDER", row.cells.get("M/F", "")).strip()
    return sex_of({"1": "M", "2": "F"}.get(cell, cell))


def _at_day(visits: list[tuple[float, float, str]], day: float) -> str:
    """Diagnosis at a day of the study; never from a visit more than a year later."""
    near = [visit for visit in visits if abs(visit[0] - day) <= NEAR_DAYS]
    before = [visit for visit in visits if visit[0] <= day]
    if not near and not before:
        return ""
    _, rating, told = min(near, key=lambda v: (abs(v[0] - day), v[0])) if near else max(before, key=lambda v: v[0])
    if rating == 0:
        return "CN"
    return "AD" if re.search(r"\bAD\b|DAT|alzheimer", told, re.IGNORECASE) else "impaired"


def _by_session(folder: Path, pattern: str) -> dict[str, Path]:
    """One scan per session: a masked one before others, then the shortest name."""
    choices: dict[str, list[Path]] = defaultdict(list)
    for path in scan_files(folder):
        names = re.findall(pattern, path.as_posix())
        if names:
            choices[names[-1]].append(path)
    return {
        name: min(paths, key=lambda p: ("mask" not in p.name, len(without_ending(p.name)), p.name))
        for name, paths in choices.items()
    }


def _table(
    root: Path,
    kind: str,
    folder: Path,
    found: list[tuple[Subject, float]],
    notes: list[str],
    skipped: list[tuple[str, str]],
) -> SubjectTable:
    if not found:
        raise InputError(f"{folder} holds no scan of a session in the table; give the scans' folder (--images).")
    return SubjectTable(root, kind, ordered(found), tuple(notes), tuple(skipped))
