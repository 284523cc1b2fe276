"""BIDS data sets: ``participants.tsv``, ``sessions.tsv``, ``scans.tsv`` and the T1-weighted scans below ``anat``.

Age: the session's own if it is there; else the participant's, plus the time since the first dated session. Several
T1-weighted scans of a session: the lowest ``run``.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.nifti import SCAN_ENDINGS
from equivox.formats.subjects import Subject, SubjectTable, age_of, date_of, ordered, sex_of, text_of, years_between
from equivox.formats.tables import Row, read_table

DIAGNOSES = ("diagnosis", "dx", "group", "clinical_diagnosis")
"""Columns of ``participants.tsv`` or ``sessions.tsv`` that are taken for the diagnosis, the first that is there."""
GROUPS = ("family", "family_id", "family_code")


def read(root: Path, images: Path | None, kind: str) -> SubjectTable:
    """Subjects of a BIDS root (or of its ``participants.tsv``)."""
    base = images or (root.parent if root.is_file() else root)
    table = root if root.is_file() else root / "participants.tsv"
    notes: list[str] = []
    skipped: list[tuple[str, str]] = []
    people = _participants(table, notes)
    folders = {child.name: child for child in sorted(base.glob("sub-*")) if child.is_dir()}
    masks = _masks(base)
    found: list[tuple[Subject, float]] = []
    for label in sorted({*people, *folders}):
        if label not in folders:
            skipped.append((label, f"has no folder in {base}"))
            continue
        if label not in people and people:
            notes.append(f"{label} is not in participants.tsv; age and sex are not known.")
        subjects = _sessions(folders[label], people.get(label), masks, notes, skipped)
        found += subjects
    if not found:
        raise InputError(f"{base} holds no sub-*/[ses-*/]anat/*_T1w.nii.gz; give the root of a BIDS data set.")
    return SubjectTable(root, "bids", ordered(found), tuple(notes), tuple(skipped))


def _participants(table: Path, notes: list[str]) -> dict[str, Row]:
    """Rows by label with ``sub-``; a participant that stands there twice is refused."""
    if not table.is_file():
        notes.append(f"{table} is not there; ages and sexes are not known.")
        return {}
    rows = read_table(table, required=["participant_id"], unique=["participant_id"], separator="\t")
    people: dict[str, Row] = {}
    for row in rows:
        label = "sub-" + row.text("participant_id").removeprefix("sub-")
        if label in people:
            raise InputError(f"{row.where}: {label} stood already in {people[label].where}; keep one of them.")
        people[label] = row
    return people


def _cell(row: Row | None, *names: str) -> str:
    """The first of several columns that a row has something in, whatever the case of its name."""
    if row is None:
        return ""
    lower = {name.lower(): cell for name, cell in row.cells.items()}
    return next((text_of(lower[name]) for name in names if name in lower and text_of(lower[name])), "")


def _sessions(
    folder: Path,
    person: Row | None,
    masks: dict[str, Path],
    notes: list[str],
    skipped: list[tuple[str, str]],
) -> list[tuple[Subject, float]]:
    """Scans of one participant, each with its day (0 where no day is known)."""
    label = folder.name
    rows = {}
    sessions_table = folder / f"{label}_sessions.tsv"
    if sessions_table.is_file():
        for row in read_table(sessions_table, required=["session_id"], unique=["session_id"], separator="\t"):
            rows["ses-" + row.text("session_id").removeprefix("ses-")] = row
    places = sorted(child for child in folder.glob("ses-*") if child.is_dir()) or [folder]
    days = {place: _day(place, label, rows.get(place.name)) for place in places}
    dated = [day for day in days.values() if day is not None]
    listed = [date_of(_cell(row, "acq_time")) for row in rows.values()]
    first = min([day for day in [*dated, *listed] if day is not None], default=None)
    age_there = age_of(_cell(person, "age", "age_at_scan", "age_years"), label, notes)
    found: list[tuple[Subject, float]] = []
    for place in places:
        session = place.name if place != folder else ""
        who = f"{label} {session}".strip()
        scan = _scan(place, who, notes)
        if scan is None:
            skipped.append((who, f"has no T1w scan in {place / 'anat'}"))
            continue
        own, day = rows.get(session), days[place]
        age = age_of(_cell(own, "age"), who, notes)
        if age is None and age_there is not None:
            age = age_there
            if day is not None and first is not None and day > first:
                age += years_between(first, day)
                notes.append(f"{who} has no age of its own; {years_between(first, day):.2f} years since the first "
                             f"session were added to the participant's.")  # fmt: skip
            elif len(places) > 1 and day is None:
                notes.append(f"{who} has neither an age nor a day of its own; the participant's age was taken.")
        if age is None:
            notes.append(f"{who} has no age.")
        values = {**({} if person is None else person.cells), **({} if own is None else own.cells)}
        subject = Subject(
            id=label,
            session=session,
            path=scan,
            age=age,
            sex=sex_of(_cell(person, "sex", "gender")),
            diagnosis=_cell(own, *DIAGNOSES) or _cell(person, *DIAGNOSES),
            group=_cell(person, *GROUPS) or label,
            mask=masks.get("_".join(part for part in (label, session) if part)),
            values=values,
        )
        found.append((subject, 0.0 if day is None or first is None else years_between(first, day)))
    return found


def _day(place: Path, label: str, row: Row | None) -> date | None:
    """The day of a session: in ``sessions.tsv``, else of its first scan in ``scans.tsv``."""
    day = date_of(_cell(row, "acq_time"))
    if day is not None:
        return day
    for table in sorted(place.glob(f"{label}*_scans.tsv")):
        rows = read_table(table, required=["filename"], separator="\t")
        known = [date_of(_cell(entry, "acq_time")) for entry in rows if "T1w" in entry.cells["filename"]]
        dated = [one for one in known if one is not None]
        if dated:
            return min(dated)
    return None


def _scan(place: Path, who: str, notes: list[str]) -> Path | None:
    """The T1-weighted scan of a session: the lowest run, then the shortest name."""
    scans = [
        path
        for path in sorted((place / "anat").glob("sub-*_T1w.*"))
        if path.name.lower().endswith(SCAN_ENDINGS) and path.is_file()
    ]

    def rank(path: Path) -> tuple[int, int, str]:
        run = re.search(r"_run-(\d+)", path.name)
        return (int(run[1]) if run else 0, len(path.name), path.name)

    scans.sort(key=rank)
    if len(scans) > 1:
        notes.append(f"{who} has {len(scans)} T1w scans; {scans[0].name} was taken.")
    return scans[0] if scans else None


def _masks(base: Path) -> dict[str, Path]:
    """Brain masks in derivatives by subject and session; those in a template's space lie on another grid."""
    found: dict[str, Path] = {}
    for path in sorted((base / "derivatives").rglob("sub-*_desc-brain_mask.nii*")):
        if "_space-" in path.name and "_space-T1w" not in path.name and "_space-orig" not in path.name:
            continue
        label = re.match(r"(sub-[^_]+)(?:_(ses-[^_]+))?_", path.name)
        if label and "/func/" not in path.as_posix():
            found.setdefault("_".join(part for part in label.groups() if part), path)
    return found
