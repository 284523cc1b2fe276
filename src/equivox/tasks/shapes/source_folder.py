"""Files in folders: class folders, a table of labels, SHREC17's tables (data_shapes.md C1, C3)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.shape_files import LabelledFile, kind_of, labelled_files
from equivox.formats.shrec import find_models, read_truth
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.contents import contents_of
from equivox.tasks.shapes.data import Content, Shape, row_count

log = logging.getLogger(__name__)
PARTS = {"train": "train", "val": "validation", "test": "test", "": ""}
SHREC_SPLITS = {"train": "train", "val": "validation", "test": "test"}
SHARES = (0.7, 0.85)
"""Where files without a split go by their name: so much to training, up to so much to validation, the rest to test."""
NAMED_PROBLEMS = 3
"""Files that cannot be used are counted, so many of them named."""
KINDS = {"mesh": "mesh", "points": "points", "structure": "points"}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file and what is known of it."""

    path: Path
    name: str
    label: str
    part: str
    sublabel: str = ""


class FolderSource:
    """One object per file; all files are read when the source is made, so that bad ones are known before training.

    Parameters
    ----------
    folder
        SHREC17's folder (it holds ``train.csv``), ``CLASS/file``, ``CLASS/{train,val,test}/file``, or any with a table
        of labels.
    config
        What the network takes.
    data
        The table, and for SHREC17 the perturbed version.

    Raises
    ------
    InputError
        If there are no files, none has a label, or none can be used.

    Notes
    -----
    Files without a split are dealt out by a digest of their names, the same way every time. Files that cannot be read
    are left out and listed in :attr:`problems`.
    """

    def __init__(self, folder: Path, config: InputConfig, data: DataConfig) -> None:
        self.name = folder.name or str(folder)
        self.problems: list[str] = []
        entries = self._shrec(folder, data) if (folder / "train.csv").is_file() else self._files(folder, data)
        contents: list[Content] = []
        kept: list[_Entry] = []
        for entry in entries:
            try:
                found = contents_of(entry.path, config)
            except InputError as error:
                self.problems.append(str(error))
                continue
            if len(found) != 1:
                self.problems.append(
                    f"{entry.path} holds {len(found)} objects; one labelled object per file is needed."
                )
                continue
            kept.append(entry)
            contents.append(found[0][1])
        if not kept:
            raise InputError(f"{folder}: none of {len(entries)} labelled files can be used: {self.problems[0]}")
        if self.problems:
            log.warning(
                "%s: %d files are left out: %s", folder, len(self.problems), " ".join(self.problems[:NAMED_PROBLEMS])
            )
        self.classes = tuple(sorted({entry.label for entry in kept}))
        place = {name: index for index, name in enumerate(self.classes)}
        self.shapes = tuple(
            Shape(id=entry.name, label=place[entry.label], split=part, sublabel=entry.sublabel)
            for entry, part in zip(kept, _parts(kept), strict=True)
        )
        self._contents = contents
        self.capacity = max((row_count(content) for content in contents), default=0)

    def content(self, index: int) -> Content:
        """The object of one file."""
        return self._contents[index]

    def _files(self, folder: Path, data: DataConfig) -> list[_Entry]:
        """Class folders, or a table."""
        found, unlabelled = labelled_files(folder, data.labels)
        self.problems += [entry.problem for entry in found if entry.problem]
        self.problems += [f"{path} has no label." for path in unlabelled]
        return [
            _Entry(entry.path, entry.path.relative_to(folder).as_posix(), entry.label, _part(entry))
            for entry in found
            if not entry.problem
        ]

    def _shrec(self, folder: Path, data: DataConfig) -> list[_Entry]:
        """``train.csv`` and ``val.csv`` (and a truth table of the test) beside folders of meshes."""
        entries = []
        version = "perturbed" if data.perturbed else "normal"
        for split, part in SHREC_SPLITS.items():
            table = next(
                (folder / name for name in (f"{split}.csv", f"{split}_truth.csv") if (folder / name).is_file()), None
            )
            place = next((folder / name for name in (f"{split}_{version}", split) if (folder / name).is_dir()), None)
            if table is None or place is None:
                self.problems.append(
                    f"{folder} has no {split}.csv with a folder {split}_{version}; that part is left out."
                )
                continue
            found, _ = find_models(place, read_truth(table))
            self.problems += [one.problem for one in found if one.path is None]
            entries += [
                _Entry(one.path, one.entry.id, one.entry.synset, part, one.entry.subsynset)
                for one in found
                if one.path is not None
            ]
        return entries


def require_fitting_folder(folder: Path, config: InputConfig) -> None:
    """Say early that files of a folder are of another kind than the input; looks at the first one.

    Raises
    ------
    InputError
        If it is.
    """
    for path in sorted(folder.rglob("*")):
        try:
            kind = kind_of(path) if path.is_file() else None
        except InputError:
            continue
        if kind is not None and KINDS[kind] == "mesh" and config.kind != "mesh":
            raise InputError(
                f"{folder} holds meshes, the network's input is of the kind {config.kind!r}; use --preset "
                "shapes-equivox or other data."
            )
        if kind is not None:
            return


def _part(entry: LabelledFile) -> str:
    return PARTS.get(entry.split.strip().lower(), PARTS["train"] if entry.split else "")


def _parts(entries: Sequence[_Entry]) -> list[str]:
    """Given parts; where only training and test are given, validation is cut from training; else all by name."""
    given = {entry.part for entry in entries}
    if given == {""}:
        return [_by_name(entry.name, SHARES) for entry in entries]
    if "validation" not in given:
        return [_by_name(entry.name, (0.85, 1.0)) if entry.part in ("train", "") else entry.part for entry in entries]
    return [entry.part or "train" for entry in entries]


def _by_name(name: str, shares: tuple[float, float]) -> str:
    """A part by a digest of the name."""
    share = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
    if share < shares[0]:
        return "train"
    return "validation" if share < shares[1] else "test"
