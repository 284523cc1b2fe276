"""From what a user names (files, folders, globs, BIDS roots) to a list of scans with distinct output names.

One bad name never stops the others: it comes back as an entry whose ``problem`` is the sentence to report.
"""

from __future__ import annotations

import glob
import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from equivox.errors import ConfigError, InputError
from equivox.formats.nifti import SCAN_ENDINGS, require_nibabel, without_ending

log = logging.getLogger(__name__)

NOT_SCANS = ("_mask", "_dseg", "_probseg", "_aligned", "_seg", "_label", "_labels")
"""Endings of file stems that name results about a scan; skipped when a folder is searched, never when named."""
BIDS_DATATYPES = ("anat", "func")
BIDS_SKIPPED = ("derivatives", "sourcedata", "code", "stimuli")


@dataclass(frozen=True, slots=True)
class ScanInput:
    """One file to work on, or one name that led to none.

    Parameters
    ----------
    path
        The file; for a problem, what the user wrote.
    stem
        Distinct among all inputs (also where case does not count): what output files begin with.
    problem
        Empty, or the sentence that says why nothing can be read here.
    """

    path: Path
    stem: str
    problem: str = ""

    @property
    def name(self) -> str:
        """The path as it is shown and recorded."""
        return self.path.as_posix()


@runtime_checkable
class InputFile(Protocol):
    """One file to work on, or one name that led to none."""

    @property
    def name(self) -> str:
        """As it is shown and recorded."""

    @property
    def path(self) -> Path:
        """The file, or what the user wrote."""

    @property
    def problem(self) -> str:
        """Empty, or why nothing can be read here."""


Named = TypeVar("Named", bound=InputFile)


def find_scans(inputs: Sequence[str | Path]) -> list[ScanInput]:
    """Expand inputs in the order given; folders and globs in sorted order; a file named twice comes once.

    A folder gives its own ``.nii``, ``.nii.gz``, ``.mgh`` and ``.mgz`` files. A BIDS root (it holds
    ``dataset_description.json`` or ``sub-*`` folders) or one of its subjects gives every scan below ``anat`` and
    ``func``. Derivatives, masks and label maps are left out of searches; naming them takes them.

    Raises
    ------
    InputError
        If no input is given at all.
    MissingExtraError
        If the package that reads scans is not installed: said once, here, and not for every scan.
    """
    require_nibabel()
    if not inputs:
        raise InputError("No input was given; name files, folders, globs in quotes, or a BIDS root.")
    return with_distinct_stems(without_repeats(entry for text in inputs for entry in _expand(str(text))))


def _expand(text: str) -> Iterator[ScanInput]:
    """All scans behind one input, or one entry with a problem."""
    path = Path(text).expanduser()
    if path.is_dir():
        yield from _search(path)
    elif path.exists() or not glob.has_magic(text):
        yield ScanInput(path, without_ending(path.name), problem="" if path.exists() else missing_sentence(path))
    else:
        matches = sorted(glob.glob(str(path), recursive=True))
        files = [Path(match) for match in matches if Path(match).is_file()]
        for match in matches:
            if Path(match).is_dir():
                yield from _search(Path(match))
        yield from (ScanInput(file, without_ending(file.name)) for file in files)
        if not matches:
            yield ScanInput(path, path.name, problem=f"No file matches {text!r}; check the pattern and the folder.")


def missing_sentence(path: Path) -> str:
    """Sentence for a path that does not exist, with the nearest name beside it where there is one."""
    import difflib

    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f"{path} does not exist; " + (f"did you mean {near[0]}?" if near else "check the path.")


def require_masks(mask: str | None, count: int) -> None:
    """ConfigError where one mask file is given for several inputs."""
    if mask is not None and not Path(mask).expanduser().is_dir() and count > 1:
        raise ConfigError(
            f"--mask {mask} is one file and there are {count} inputs; give a folder with a mask per scan."
        )


def mask_of_scan(mask: str, scan: ScanInput, *, endings: Sequence[str] = ("_mask",)) -> Path:
    """The mask of a scan: the file given, or in the folder given a file named after the scan.

    ``endings`` may follow the scan's name, the likeliest first; the name alone comes after them, then the stem.

    Raises
    ------
    InputError
        If the folder holds none.
    """
    path = Path(mask).expanduser()
    if not path.is_dir():
        return path
    own = without_ending(scan.path.name)
    for name in (*(f"{own}{ending}" for ending in endings), own, scan.stem):
        for ending in SCAN_ENDINGS:
            if (path / f"{name}{ending}").is_file():
                return path / f"{name}{ending}"
    raise InputError(f"{path} holds no mask for {scan.name}; name it {own}_mask.nii.gz or {own}.nii.gz.")


def _search(folder: Path) -> Iterator[ScanInput]:
    """Scans of a folder, of a BIDS root or of a BIDS subject."""
    try:
        subjects = sorted(child for child in folder.glob("sub-*") if child.is_dir())
        if folder.name.startswith("sub-") and folder.is_dir() and not _scans_in(folder.iterdir()):
            subjects = [folder]
        files = [file for subject in subjects for file in _bids_files(subject)] if subjects else []
        files = files or _scans_in(folder.iterdir())
    except OSError as error:
        yield ScanInput(
            folder, folder.name, problem=f"{folder} cannot be searched ({error.strerror}); check its rights."
        )
        return
    kept = [file for file in files if not without_ending(file.name).endswith(NOT_SCANS)]
    for file in files:
        if file not in kept:
            log.info("%s was left out: its name says that it is no scan", file)
    if kept:
        yield from (ScanInput(file, without_ending(file.name)) for file in kept)
    elif _holds_dicom(folder):
        yield ScanInput(
            folder,
            folder.name,
            problem=f"{folder} holds DICOM files; convert them with dcm2niix -z y -o OUT {folder} and give OUT.",
        )
    else:
        yield ScanInput(
            folder,
            folder.name,
            problem=f"{folder} holds no scan ({', '.join(SCAN_ENDINGS)}); its subfolders are searched only in a BIDS "
            f'dataset, otherwise give a glob like "{folder}/**/*.nii.gz".',
        )


def _scans_in(paths: Iterable[Path]) -> list[Path]:
    """Scan files among ``paths``, sorted, without hidden and unfinished ones."""
    return sorted(
        path
        for path in paths
        if path.name.lower().endswith(SCAN_ENDINGS) and not path.name.startswith(".") and path.is_file()
    )


def _bids_files(subject: Path) -> list[Path]:
    """Scans below a subject's ``anat`` and ``func`` folders (of any session)."""
    return [
        path
        for path in _scans_in(subject.rglob("*"))
        if path.parent.name in BIDS_DATATYPES and not set(BIDS_SKIPPED) & set(path.relative_to(subject).parts)
    ]


def _holds_dicom(folder: Path, *, looked_at: int = 50) -> bool:
    """Whether one of the first files below ``folder`` is DICOM, by its ending or its magic number."""
    count = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        count += 1
        if count > looked_at:
            return False
        if path.suffix.lower() in (".dcm", ".ima") or path.name.upper() == "DICOMDIR":
            return True
        try:
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    return True
        except OSError:
            continue
    return False


def without_repeats(found: Iterable[Named]) -> list[Named]:
    """Entries in their order, a file once; a name that led to none stays."""
    kept: list[Named] = []
    seen: set[Path] = set()
    for entry in found:
        identity = entry.path.resolve()
        if entry.problem or identity not in seen:
            kept.append(entry)
        seen.add(identity)
    return kept


def with_distinct_stems(found: Sequence[ScanInput]) -> list[ScanInput]:
    """Tell inputs of one stem apart: by their file ending (``a_nii``, ``a_nii_gz``), else by their folders."""
    entries = list(found)
    for tell_apart in (_stem_with_ending, _stem_with_folder, _stem_with_digest):
        groups: dict[str, list[int]] = defaultdict(list)
        for index, entry in enumerate(entries):
            groups[entry.stem.casefold()].append(index)
        for indices in groups.values():
            members = [found[index] for index in indices]
            if len(indices) > 1:
                for index, stem in zip(indices, tell_apart(members), strict=True):
                    entries[index] = replace(entries[index], stem=stem)
    return entries


def _stem_with_ending(members: Sequence[ScanInput]) -> list[str]:
    endings = [member.path.name[len(member.stem) :].replace(".", "_") for member in members]
    return [m.stem + (e if len(set(endings)) > 1 else "") for m, e in zip(members, endings, strict=True)]


def _stem_with_folder(members: Sequence[ScanInput]) -> list[str]:
    depth = 1
    while True:
        folders = [member.path.resolve().parts[1:-1][-depth:] for member in members]
        deepest = depth >= max(len(member.path.resolve().parts) for member in members)
        if len(set(folders)) > 1 or deepest:
            return ["_".join([*folder, member.stem]) for folder, member in zip(folders, members, strict=True)]
        depth += 1


def _stem_with_digest(members: Sequence[ScanInput]) -> list[str]:
    digests = [hashlib.sha256(str(member.path.resolve()).encode()).hexdigest()[:8] for member in members]
    return [f"{member.stem}_{digest}" for member, digest in zip(members, digests, strict=True)]
