"""ADNI: ``ADNIMERGE.csv``, or ``DXSUM`` and ``PTDEMOG`` of newer releases, and a folder of scans.

``AGE`` in ADNIMERGE is the age at baseline on every row: the age at the scan is ``AGE`` plus the time since the day of
the visit ``bl``. The diagnosis at a scan is ``DX`` of the visit nearest in time within 180 days, else the last known
one carried forward; never one of a later visit. Scans are known by ``NNN_S_NNNN`` and a day in their path.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.subjects import (
    DAYS_PER_YEAR,
    Subject,
    SubjectTable,
    date_of,
    number_of,
    ordered,
    scan_files,
    sex_of,
    text_of,
    years_between,
)
from equivox.formats.tables import Row, read_header, read_table

NEAR_DAYS = 180
STABLE_YEARS = 2.0
PROGRESS_YEARS = 3.0
DIAGNOSES = {"CN": "CN", "MCI": "MCI", "Dementia": "AD", "NL": "CN", "1": "CN", "2": "MCI", "3": "AD"}
BASELINE_DIAGNOSES = {"CN": "CN", "SMC": "CN", "EMCI": "MCI", "LMCI": "MCI", "MCI": "MCI", "AD": "AD"}
PERSON = re.compile(r"\d{3}_S_\d{4,5}")
RULES = (
    "ADNI: age at the scan is AGE (at baseline) plus the years since the visit bl.",
    f"ADNI: diagnosis is DX of the nearest visit within {NEAR_DAYS} days, else the last known before the scan; SMC "
    "(subjective memory concern) counts as CN.",
    f"ADNI: sMCI means MCI at every known visit over at least {12 * STABLE_YEARS:.0f} months; pMCI means MCI at the "
    f"scan and dementia within {12 * PROGRESS_YEARS:.0f} months; who went back to CN or from dementia is neither.",
)


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit: its day, its diagnosis (empty where unknown)."""

    day: date
    diagnosis: str


@dataclass
class Person:
    """What the tables say of one person."""

    visits: list[Visit]
    baseline: date | None = None
    baseline_age: float | None = None
    baseline_diagnosis: str = ""
    born: date | None = None
    sex: str = ""


def read(root: Path, images: Path | None, kind: str) -> SubjectTable:
    """Subjects of ADNI."""
    folder = root.parent if root.is_file() else root
    notes = list(RULES)
    people = _people(root, folder, notes)
    found: list[tuple[Subject, float]] = []
    skipped: list[tuple[str, str]] = []
    seen: set[str] = set()
    for path in scan_files(images or folder):
        names = PERSON.findall(path.as_posix())
        day = _day_of(path)
        if not names:
            skipped.append((path.name, "has no ADNI identifier (NNN_S_NNNN) in its path"))
        elif names[-1] not in people:
            skipped.append((path.name, f"belongs to {names[-1]}, who is not in the table"))
        elif day is None:
            skipped.append((path.name, "has no day (YYYY-MM-DD) in its path, so its age cannot be told"))
        elif f"{names[-1]} {day}" in seen:
            skipped.append((path.name, f"is a further scan of {names[-1]} on {day}"))
        else:
            seen.add(f"{names[-1]} {day}")
            found.append((_subject(names[-1], people[names[-1]], path, day, notes), float(day.toordinal())))
    missing = sorted(set(people) - {subject.id for subject, _ in found})
    skipped += [(name, "has no scan") for name in missing]
    if not found:
        raise InputError(
            f"{images or folder} holds no scan of a person in the table; give the scans' folder (--images)."
        )
    return SubjectTable(root, "adni", ordered(found), tuple(notes), tuple(skipped))


def _subject(name: str, person: Person, path: Path, day: date, notes: list[str]) -> Subject:
    age = None
    if person.baseline_age is not None and person.baseline is not None:
        age = person.baseline_age + years_between(person.baseline, day)
    elif person.born is not None:
        age = years_between(person.born, day)
    if age is None:
        notes.append(f"{name} {day} has no age: its baseline age or the day of its baseline visit is not known.")
    diagnosis = diagnosis_at(person, day)
    if not diagnosis:
        notes.append(f"{name} {day} has no diagnosis: no visit with DX on or before it.")
    return Subject(
        id=name,
        session=day.isoformat(),
        path=path,
        age=age,
        sex=sex_of(person.sex),
        diagnosis=diagnosis,
        group=name,
        values={"DX_bl": person.baseline_diagnosis, "progression": progression_at(person, day)},
    )


def diagnosis_at(person: Person, day: date) -> str:
    """CN, MCI or AD at a scan: the nearest known within 180 days, else the last known before; empty if neither."""
    known = [visit for visit in person.visits if visit.diagnosis]
    near = [visit for visit in known if abs((visit.day - day).days) <= NEAR_DAYS]
    if near:
        return min(near, key=lambda visit: (abs((visit.day - day).days), visit.day)).diagnosis
    before = [visit for visit in known if visit.day <= day]
    if before:
        return max(before, key=lambda visit: visit.day).diagnosis
    at_baseline = person.baseline is not None and abs((person.baseline - day).days) <= NEAR_DAYS
    return BASELINE_DIAGNOSES.get(person.baseline_diagnosis, "") if at_baseline else ""


def progression_at(person: Person, day: date) -> str:
    """``sMCI``, ``pMCI`` or nothing, by the rule in :data:`RULES`."""
    known = sorted((visit for visit in person.visits if visit.diagnosis), key=lambda visit: visit.day)
    path = [visit.diagnosis for visit in known]
    level = {"CN": 0, "MCI": 1, "AD": 2}
    if any(level[b] < level[a] for a, b in itertools.pairwise(path)):
        return ""
    if known and set(path) == {"MCI"}:
        return "sMCI" if years_between(known[0].day, known[-1].day) >= STABLE_YEARS else ""
    limit = day + timedelta(days=PROGRESS_YEARS * DAYS_PER_YEAR)
    turned = any(visit.diagnosis == "AD" and day < visit.day <= limit for visit in known)
    return "pMCI" if diagnosis_at(person, day) == "MCI" and turned else ""


def _people(root: Path, folder: Path, notes: list[str]) -> dict[str, Person]:
    tables = [root] if root.is_file() else sorted(folder.glob("*.csv"))
    merged = [table for table in tables if {"PTID", "VISCODE", "EXAMDATE", "AGE"} <= set(read_header(table))]
    if merged:
        return _from_merged(merged[0], notes)
    tables = sorted(folder.glob("*.csv"))
    visits = [table for table in tables if {"PTID", "DIAGNOSIS"} <= set(read_header(table))]
    people = [table for table in tables if {"PTID", "PTDOB"} <= set(read_header(table))]
    if visits and people:
        notes.append("ADNI: read from DXSUM and PTDEMOG; a birth date of month and year counts as the 15th.")
        return _from_parts(visits[0], people[0])
    raise InputError(f"{folder} holds neither ADNIMERGE.csv nor DXSUM and PTDEMOG tables; give one of them.")


def _from_merged(table: Path, notes: list[str]) -> dict[str, Person]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(table, required=["PTID", "VISCODE", "EXAMDATE", "AGE"]):
        rows[row.text("PTID")].append(row)
    people = {}
    for name, own in rows.items():
        person = Person([])
        codes: set[str] = set()
        for row in own:
            day = date_of(row.cells["EXAMDATE"])
            code = row.cells["VISCODE"].strip()
            if code in codes:
                raise InputError(f"{row.where}: {name} has the visit {code} twice; keep one of them.")
            codes.add(code)
            diagnosis = DIAGNOSES.get(text_of(row.cells.get("DX", "")), "")
            if day is not None:
                person.visits.append(Visit(day, diagnosis))
            if code == "bl":
                person.baseline = day
            age = number_of(row.cells["AGE"])
            person.baseline_age = age if person.baseline_age is None else person.baseline_age
            person.baseline_diagnosis = person.baseline_diagnosis or text_of(row.cells.get("DX_bl", ""))
            person.sex = person.sex or row.cells.get("PTGENDER", "")
        if person.baseline is None:
            person.baseline = _counted_back(own)
            if person.baseline is not None:
                notes.append(f"{name} has no dated visit bl; its day was counted back from a later visit.")
        person.visits.sort(key=lambda visit: visit.day)
        people[name] = person
    return people


def _counted_back(rows: list[Row]) -> date | None:
    """The day of the baseline visit from a later one and the years or months since."""
    for row in rows:
        day, years = date_of(row.cells["EXAMDATE"]), number_of(row.cells.get("Years_bl", ""))
        months = number_of(row.cells.get("Month_bl", "")) if years is None else 12 * years
        if day is not None and months is not None:
            return day - timedelta(days=round(months / 12 * DAYS_PER_YEAR))
    return None


def _from_parts(visits: Path, people: Path) -> dict[str, Person]:
    found: dict[str, Person] = {}
    for row in read_table(people, required=["PTID", "PTDOB"]):
        person = found.setdefault(row.text("PTID"), Person([]))
        match = re.match(r"(?:(\d{1,2})/)?(?:(\d{1,2})/)?(\d{4})$", row.cells["PTDOB"].strip())
        if match:
            person.born = date(int(match[3]), int(match[1] or 7), int(match[2] or 15))
        person.sex = {"1": "M", "2": "F"}.get(row.cells.get("PTGENDER", "").strip(), row.cells.get("PTGENDER", ""))
    for row in read_table(visits, required=["PTID", "DIAGNOSIS"]):
        day = date_of(row.cells.get("EXAMDATE", "")) or date_of(row.cells.get("USERDATE", ""))
        if day is not None and row.text("PTID") in found:
            code = text_of(row.cells["DIAGNOSIS"]).removesuffix(".0")
            found[row.text("PTID")].visits.append(Visit(day, DIAGNOSES.get(code, "")))
    return found


def _day_of(path: Path) -> date | None:
    """The day in a path: the last ``YYYY-MM-DD``, else the last ``_YYYYMMDD`` that is one."""
    text = path.as_posix()
    for pattern in (r"\d{4}-\d{2}-\d{2}", r"(?<=_)(?:19|20)\d{6}(?!\d{7})"):
        days = [
            day
            for day in (date_of(match[:8] if "-" not in match else match) for match in re.findall(pattern, text))
            if day
        ]
        if days:
            return days[-1]
    return None
