"""Who was scanned, when, and how old they were: one list from BIDS, ADNI, OASIS, NCANDA, or a CSV table and a folder.

Every reader gives the age *at the scan*. What had to be assumed or left out is told in sentences (``notes``,
``skipped``), never silently done. A subject's sessions come in the order of time, whatever the order of the rows.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

from equivox.errors import InputError
from equivox.formats.nifti import SCAN_ENDINGS, without_ending
from equivox.formats.tables import read_header

Layout = Literal["auto", "bids", "adni", "oasis1", "oasis2", "oasis3", "ncanda", "csv"]
DAYS_PER_YEAR = 365.25
MISSING = frozenset({"", "n/a", "na", "nan", "none", "null", ".", "-", "unknown", "-4", "-4.0", "-1"})
"""Cells that hold nothing (ADNI writes -4 and -1)."""
NO_IMAGES = ("_mask", "_dseg", "_probseg", "_seg", "_label", "_labels", "_aligned")
"""Endings of names that are never the scan itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One scan of one person.

    Parameters
    ----------
    id
        The person.
    session
        Which visit; empty where there is one.
    path
        The scan; None where the table names somebody whose scan is not there.
    age
        At the scan, in years; None where it is not known.
    sex
        ``"F"``, ``"M"`` or empty.
    diagnosis
        At the scan; empty where it is not known.
    group
        What folds keep together: the person, or a family that the table names.
    mask
        A brain mask that lies beside the scan in the data set's derivatives.
    values
        All other columns of the row, as text.
    """

    id: str
    session: str = ""
    path: Path | None = None
    age: float | None = None
    sex: Literal["F", "M", ""] = ""
    diagnosis: str = ""
    group: str = ""
    mask: Path | None = None
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The person and the visit, for messages."""
        return f"{self.id} {self.session}".strip()


@dataclass(frozen=True, slots=True)
class SubjectTable:
    """What a data set holds.

    Parameters
    ----------
    root
        Where it was read.
    layout
        As what it was read.
    subjects
        Scans, by person and time.
    notes
        Rules that were used and what had to be assumed, one sentence each.
    skipped
        (who, why) for every row or file that is not among ``subjects``.
    """

    root: Path
    layout: str
    subjects: tuple[Subject, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def read_subjects(root: Path | str, *, images: Path | str | None = None, layout: Layout = "auto") -> list[Subject]:
    """All scans of a data set with age, sex and diagnosis at the scan: :func:`read_subject_table` without its notes."""
    return list(read_subject_table(root, images=images, layout=layout).subjects)


def read_subject_table(root: Path | str, *, images: Path | str | None = None, layout: Layout = "auto") -> SubjectTable:
    """All scans of a data set, with what was assumed and what was left out.

    Parameters
    ----------
    root
        A BIDS root; a folder with ``ADNIMERGE.csv``, ``oasis_cross-sectional.csv``, ``oasis_longitudinal.csv``,
        OASIS-3's tables or NCANDA's ``demographics.csv``; such a table itself; or any CSV with an ``id`` column.
    images
        Folder with the scans; by default that of the table.
    layout
        What it is, where that cannot be told.

    Raises
    ------
    InputError
        If nothing of a known layout is there, a table is broken, or a person's visit stands there twice.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise InputError(f"{root} does not exist; give a data set's folder or its CSV table.")
    folder = None if images is None else Path(images).expanduser()
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is no folder; --images names the folder with the scans.")
    kind = layout_of(root) if layout == "auto" else layout
    reader = importlib.import_module(f"equivox.formats.subjects_{kind.rstrip('123')}")
    found: SubjectTable = reader.read(root, folder, kind)
    _require_distinct(found)
    return found


def layout_of(root: Path) -> str:
    """Which layout a folder or a table has, by its file names and columns.

    Raises
    ------
    InputError
        If it has none.
    """
    if root.is_file():
        return _layout_of_table(root)
    if (root / "participants.tsv").is_file() or any(child.is_dir() for child in root.glob("sub-*")):
        return "bids"
    tables = sorted(root.glob("*.csv"))
    for table in tables:
        lower = table.name.lower()
        if lower.startswith(("adnimerge", "dxsum")):
            return "adni"
        if lower == "demographics.csv" and (root / "cahalan.csv").is_file():
            return "ncanda"
    kinds = {_layout_of_table(table) for table in tables if read_header(table)} if tables else set()
    for kind in ("oasis1", "oasis2", "oasis3", "adni", "ncanda"):
        if kind in kinds:
            return kind
    if len(tables) == 1:
        return "csv"
    names = ", ".join(table.name for table in tables[:5])
    raise InputError(
        f"{root} is no BIDS root and holds "
        + (f"several tables ({names}); name the one that lists the subjects." if tables else "no CSV table.")
    )


def _layout_of_table(path: Path) -> str:
    """Layout by the columns of a table."""
    tab = path.suffix.lower() == ".tsv"
    columns = set(read_header(path, separator="\t" if tab else ","))
    if tab or "participant_id" in columns:
        return "bids" if path.name == "participants.tsv" else "csv"
    for kind, needed in (
        ("adni", {"PTID", "EXAMDATE", "DX"}),
        ("adni", {"PTID", "DIAGNOSIS"}),
        ("oasis2", {"Subject ID", "MRI ID"}),
        ("oasis1", {"ID", "M/F", "CDR"}),
        ("oasis3", {"OASISID", "AgeatEntry"}),
        ("ncanda", {"subject", "visit_age"}),
    ):
        if needed <= columns:
            return kind
    return "csv"


def number_of(cell: str) -> float | None:
    """A number, with a decimal comma too; None for an empty cell, for text, and for a capped age such as ``89+``.

    >>> number_of("71,5"), number_of("n/a"), number_of("89+")
    (71.5, None, None)
    """
    text = cell.strip().replace(",", ".")
    if text.lower() in MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number and abs(number) != float("inf") else None


def age_of(cell: str, who: str, notes: list[str]) -> float | None:
    """An age in years; what is no age leaves a note."""
    text = cell.strip()
    if text.lower() in MISSING:
        return None
    age = number_of(text)
    if age is None:
        why = "is a capped age" if re.fullmatch(r"[<>]?=?\s*\d+\s*\+?", text) else "is no number"
        notes.append(f"{who} has the age {text!r}, which {why}; it counts as not known.")
        return None
    if not 0.0 <= age < 120.0:
        notes.append(f"{who} has the age {age:g}, which cannot be in years; it counts as not known.")
        return None
    return age


def sex_of(cell: str) -> Literal["F", "M", ""]:
    """``F`` or ``M`` from m, f, male, female in any case; empty otherwise. Numbers mean different things elsewhere."""
    text = cell.strip().lower()
    if text in ("f", "female", "woman", "w"):
        return "F"
    return "M" if text in ("m", "male", "man") else ""


def text_of(cell: str) -> str:
    """The cell, or nothing where it says n/a or the like."""
    return "" if cell.strip().lower() in MISSING else cell.strip()


def date_of(cell: str) -> date | None:
    """A day from ``2005-09-08``, ``2005-09-08T10:00:00``, ``9/8/2005`` (month first), ``20050908``."""
    text = cell.strip()
    for pattern, order in (
        (r"(\d{4})-(\d{1,2})-(\d{1,2})", (0, 1, 2)),
        (r"(\d{1,2})/(\d{1,2})/(\d{4})", (2, 0, 1)),
        (r"(\d{4})(\d{2})(\d{2})$", (0, 1, 2)),
    ):
        match = re.match(pattern, text)
        if match:
            try:
                return date(*(int(match.groups()[place]) for place in order))
            except ValueError:
                return None
    return None


def years_between(earlier: date, later: date) -> float:
    """Years of 365.25 days; negative where ``later`` is before."""
    return (later - earlier).days / DAYS_PER_YEAR


def scan_files(folder: Path) -> list[Path]:
    """Every scan below a folder, sorted; masks and label maps, hidden files and derivatives are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or "derivatives" in parts:
            continue
        if path.name.lower().endswith(SCAN_ENDINGS) and not without_ending(path.name).endswith(NO_IMAGES):
            found.append(path)
    return found


def ordered(subjects: Iterable[tuple[Subject, float]]) -> tuple[Subject, ...]:
    """Subjects by id and then by the time given with each."""
    return tuple(subject for subject, _ in sorted(subjects, key=lambda pair: (pair[0].id, pair[1], pair[0].session)))


def _require_distinct(table: SubjectTable) -> None:
    """InputError if one visit of one person comes twice, or one file belongs to two."""
    seen: set[tuple[str, str]] = set()
    files: dict[Path, str] = {}
    for subject in table.subjects:
        key = (subject.id, subject.session)
        if key in seen:
            raise InputError(f"{table.root} has {subject.name} twice; keep one row, or tell its sessions apart.")
        seen.add(key)
        if subject.path is not None:
            place = subject.path.resolve()
            if place in files:
                raise InputError(
                    f"{table.root} gives {subject.path} to {files[place]} and to {subject.name}; a scan has one owner."
                )
            files[place] = subject.name
