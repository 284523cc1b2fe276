"""From what a user names to scans: files, folders, globs, BIDS roots, data sets, CSV tables with a folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from equivox.errors import EquivoxError
from equivox.formats.nifti import SCAN_ENDINGS, without_ending
from equivox.formats.scans import ScanInput, find_scans, mask_of_scan, with_distinct_stems, without_repeats
from equivox.formats.subjects import Subject, SubjectTable, layout_of, read_subject_table

TABLE_ENDINGS = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class EncodeInput:
    """One scan to encode, the mask that its data set has for it, and who it is."""

    scan: ScanInput
    mask: Path | None = None
    subject: Subject | None = None

    @property
    def name(self) -> str:
        """As the scan is shown and recorded."""
        return self.scan.name

    @property
    def path(self) -> Path:
        """The scan's file."""
        return self.scan.path

    @property
    def problem(self) -> str:
        """Empty, or why nothing can be read here."""
        return self.scan.problem


@dataclass(frozen=True, slots=True)
class FoundInputs:
    """Scans, and what the data sets among the inputs had to say."""

    entries: tuple[EncodeInput, ...]
    notes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def find_inputs(inputs: Sequence[str | Path], *, images: Path | str | None = None, layout: str = "auto") -> FoundInputs:
    """Expand inputs in the order given; a file that is named twice comes once.

    Raises
    ------
    InputError
        If nothing is given, or a table among the inputs is broken.
    """
    scans: list[ScanInput] = []
    subjects: dict[Path, Subject] = {}
    notes: list[str] = []
    skipped: list[tuple[str, str]] = []
    if not inputs:
        find_scans(inputs)
    for text in inputs:
        table = _table(Path(text).expanduser(), images, layout)
        found = find_scans([text]) if table is None else _scans_of(table)
        if table is not None:
            notes += table.notes
            skipped += table.skipped
            subjects |= {subject.path.resolve(): subject for subject in table.subjects if subject.path is not None}
        scans += found
    entries = []
    for scan in with_distinct_stems(without_repeats(scans)):
        subject = subjects.get(scan.path.resolve())
        entries.append(EncodeInput(scan, None if subject is None else subject.mask, subject))
    return FoundInputs(tuple(entries), tuple(notes), tuple(skipped))


def _table(path: Path, images: Path | str | None, layout: str) -> SubjectTable | None:
    """The data set that a folder or a table is; None for plain scans."""
    if path.is_file() and path.suffix.lower() not in TABLE_ENDINGS:
        return None
    if not path.exists():
        return None
    kind: str | None = layout if layout != "auto" else None
    if kind is None and path.is_dir():
        if any(child.name.lower().endswith(SCAN_ENDINGS) for child in path.iterdir()):
            return None
        with suppress(EquivoxError):
            kind = layout_of(path)
        if kind is None:
            return None
    return read_subject_table(path, images=images, layout=cast(Any, kind or "auto"))


def _scans_of(table: SubjectTable) -> list[ScanInput]:
    return [ScanInput(s.path, without_ending(s.path.name)) for s in table.subjects if s.path is not None]


def mask_of(entry: EncodeInput, mask: str | None) -> Path | None:
    """The mask of a scan: the file given, one named after the scan in the folder given, or its data set's own.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    if mask is None:
        return entry.mask
    return mask_of_scan(mask, entry.scan, endings=("_mask", "_brain_mask"))
