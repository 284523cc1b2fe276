"""Any CSV table with an ``id`` column, and a folder with the scans.

Columns: ``id`` (or ``subject``, ``participant_id``, ``subject_id``); of use are ``path`` (or ``file``, ``image``;
relative to the images' folder or the table), ``session``, ``age`` [years, at the scan], ``sex``, ``diagnosis`` (or
``group``), ``family`` (what folds keep together) and ``mask``. All others are kept. Without a path the scan is the file
whose name begins with the id.
"""

from __future__ import annotations

from pathlib import Path

from equivox.errors import InputError
from equivox.formats.nifti import SCAN_ENDINGS, without_ending
from equivox.formats.subjects import Subject, SubjectTable, age_of, ordered, scan_files, sex_of, text_of
from equivox.formats.tables import Row, read_header, read_table

IDS = ("id", "subject", "participant_id", "subject_id")
PATHS = ("path", "file", "image", "filename")


def read(root: Path, images: Path | None, kind: str) -> SubjectTable:
    """Subjects of a table (or of the only table in a folder)."""
    table = root if root.is_file() else sorted(root.glob("*.csv"))[0]
    separator = "\t" if table.suffix.lower() == ".tsv" else ","
    header = read_header(table, separator=separator)
    identity = _named(header, IDS)
    if identity is None:
        raise InputError(f"{table} lacks a column id (or {', '.join(IDS[1:])}); it has {', '.join(header[:12])}.")
    session = _named(header, ("session", "session_id", "visit"))
    unique = [identity] + ([session] if session else [])
    rows = read_table(table, required=[identity], unique=[identity] if not session else (), separator=separator)
    notes: list[str] = []
    skipped: list[tuple[str, str]] = []
    found = []
    files = _files(images or table.parent)
    path_column = _named(header, PATHS)
    for row in rows:
        values = {name.lower(): cell for name, cell in row.cells.items()}
        who = " ".join(row.text(name) if name == identity else text_of(row.cells[name]) for name in unique).strip()
        path = _scan(
            row, path_column, row.text(identity), text_of(row.cells[session]) if session else "", files, images, table
        )
        if path is None:
            skipped.append((who, f"has no scan in {images or table.parent}"))
            continue
        known = {identity, session, path_column}
        mask = text_of(values.get("mask", ""))
        found.append(
            (
                Subject(
                    id=row.text(identity),
                    session=text_of(row.cells[session]) if session else "",
                    path=path,
                    age=age_of(values.get("age", ""), who, notes),
                    sex=sex_of(values.get("sex", values.get("gender", ""))),
                    diagnosis=text_of(values.get("diagnosis", values.get("dx", values.get("group", "")))),
                    group=text_of(values.get("family", "")) or row.text(identity),
                    mask=_below(Path(mask), images, table) if mask else None,
                    values={name: cell for name, cell in row.cells.items() if name not in known},
                ),
                0.0,
            )
        )
    if not found:
        raise InputError(
            f"none of the {len(rows)} rows of {table} has a scan in {images or table.parent}; give the folder of the "
            f"scans (--images), or a column path."
        )
    return SubjectTable(root, "csv", ordered(found), tuple(notes), tuple(skipped))


def _named(header: list[str], names: tuple[str, ...]) -> str | None:
    """The column that has one of several names, whatever its case."""
    lower = {column.lower(): column for column in header}
    return next((lower[name] for name in names if name in lower), None)


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(without_ending(path.name), path) for path in scan_files(folder)]


def _scan(
    row: Row,
    column: str | None,
    identity: str,
    session: str,
    files: list[tuple[str, Path]],
    images: Path | None,
    table: Path,
) -> Path | None:
    """The scan of a row: as its path says, else by its name; None where there is none."""
    if column is not None and text_of(row.cells[column]):
        return _below(Path(text_of(row.cells[column])), images, table)
    fitting = [
        path
        for stem, path in files
        if (stem == identity or (stem.startswith(identity) and not stem[len(identity)].isalnum()))
        and (not session or session in path.as_posix()[len(table.parent.as_posix()) :])
    ]
    if len(fitting) > 1:
        weighted = [path for path in fitting if "t1" in without_ending(path.name)[len(identity) :].lower()]
        fitting = weighted or fitting
    if len(fitting) > 1:
        names = ", ".join(path.name for path in fitting[:3])
        raise InputError(
            f"{row.where}: {identity} fits {len(fitting)} scans ({names}); add a column path, "
            f"or name the folder of the scans with --images."
        )
    return fitting[0] if fitting else None


def _below(path: Path, images: Path | None, table: Path) -> Path | None:
    """A path of the table, where it leads to a file."""
    places = [path] if path.is_absolute() else [*([images / path] if images else []), table.parent / path]
    for place in places:
        for ending in ("", *SCAN_ENDINGS):
            candidate = place.with_name(place.name + ending)
            if candidate.is_file():
                return candidate
    return None
