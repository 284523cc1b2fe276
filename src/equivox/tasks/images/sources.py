"""Where labelled pictures come from: folders of classes, tables of labels, ``.npz`` files, CIFAR's own batches."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import Array, read_arrays, require_file, require_length
from equivox.formats.cifar import is_cifar, read_cifar
from equivox.formats.galaxy_zoo import CLASSES as GALAXY_CLASSES
from equivox.formats.galaxy_zoo import is_galaxy_table, read_galaxy_table
from equivox.formats.pictures import PICTURES, LabelledPicture, labelled_pictures, match_rows, read_picture
from equivox.tasks.images.config import DataConfig, InputConfig
from equivox.tasks.images.data import central_square

log = logging.getLogger(__name__)
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Of each class, where nothing says which part a picture belongs to."""
HELD_BACK = 0.1
"""Of each class of the training part, for validation, where only training and test are given."""
IMAGE_NAMES, LABEL_NAMES = ("x", "images", "image", "data"), ("label", "labels", "y", "shape_class")
NAMED_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture's name, class (-1: not known) and part."""

    id: str
    label: int
    split: str


class ImageSource:
    """Labelled pictures, brought to the central square that a network sees.

    Parameters
    ----------
    name
        What the data are, in a word or two.
    classes
        Names, in the order of the labels.
    entries
        All pictures; parts may be empty and are then dealt out.
    picture
        Gives a picture by its position.
    config
        What the network takes.
    problems
        Sentences on what is left out already.

    Attributes
    ----------
    squares
        Every picture that could be read, uint8, in the order of :attr:`entries`.

    Raises
    ------
    InputError
        If not one picture can be used.
    """

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        entries: Sequence[Entry],
        picture: Callable[[int], UInt8[Tensor, "channel y x"]],
        config: InputConfig,
        problems: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.problems = list(problems)
        self.squares: list[Tensor] = []
        kept = []
        for place, entry in enumerate(entries):
            try:
                self.squares.append(central_square(picture(place), config, where=entry.id))
                kept.append(entry)
            except InputError as error:
                self.problems.append(str(error))
        if not kept:
            raise InputError(f"{name}: none of {len(entries)} pictures can be used: {self.problems[0]}")
        if self.problems:
            text = " ".join(self.problems[:NAMED_PROBLEMS])
            log.warning("%s: %d things are left out: %s", name, len(self.problems), text)
        self.entries = deal_out(kept)
        self.classes = tuple(classes)

    def of_split(self, split: str) -> list[int]:
        """Positions of the pictures of a part; ``"all"`` for every one."""
        return [place for place, entry in enumerate(self.entries) if split in ("all", entry.split)]


def open_source(data: DataConfig, config: InputConfig) -> ImageSource:
    """The pictures that a configuration names.

    Raises
    ------
    InputError
        If there are no such data, or none can be used.
    """
    path = Path(data.data).expanduser()
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give a folder of images in classes, CIFAR's batches, or an .npz file."
        )
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise InputError(
                f"{path} is no .npz file; give a folder of images in classes, CIFAR's batches, or an .npz."
            )
        return _from_archive(path, config)
    if data.labels is None and is_cifar(path):
        found = read_cifar(path)
        entries = [
            Entry(f"{'test' if test else 'train'}/{place:05d}", label, "test" if test else "train")
            for place, (label, test) in enumerate(zip(found.labels.tolist(), found.is_test, strict=True))
        ]
        return ImageSource(path.name, found.classes, entries, lambda place: found.images[place], config)
    return _from_folder(path, data, config)


def deal_out(entries: Sequence[Entry]) -> list[Entry]:
    """Give every picture a part: as stated; validation cut from training; or all by class and a digest of the name."""
    given = {entry.split for entry in entries}
    if "validation" in given:
        return [Entry(entry.id, entry.label, entry.split or "train") for entry in entries]
    if given <= {""}:
        return _dealt(entries, SHARES, {""})
    return _dealt(entries, {"train": 1.0 - HELD_BACK, "validation": HELD_BACK}, {"", "train"})


def _dealt(entries: Sequence[Entry], shares: dict[str, float], parts: set[str]) -> list[Entry]:
    """Deal the pictures of some parts, class by class, in the order of a digest of their names."""
    found = list(entries)
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, entry in enumerate(entries):
        if entry.split in parts:
            by_class[entry.label].append(place)
    for members in by_class.values():
        members.sort(key=lambda place: hashlib.blake2b(entries[place].id.encode(), digest_size=8).digest())
        bounds, start = [], 0.0
        for name, share in shares.items():
            start += share
            bounds.append((name, round(start * len(members))))
        for rank, place in enumerate(members):
            name = next((name for name, bound in bounds if rank < bound), bounds[-1][0])
            found[place] = Entry(entries[place].id, entries[place].label, name)
    return found


def _from_folder(folder: Path, data: DataConfig, config: InputConfig) -> ImageSource:
    """Class folders, a table of labels, or a catalogue of Galaxy Zoo."""
    problems: list[str]
    found: list[LabelledPicture]
    if data.labels is None:
        found, problems = labelled_pictures(folder)
        classes: Sequence[str] = sorted({one.label for one in found})
    else:
        table = require_file(Path(data.labels).expanduser())
        if is_galaxy_table(table):
            rows, dropped = read_galaxy_table(table)
            files = list(PICTURES.search(folder))
            found, problems = match_rows(folder, files, rows, table)
            problems = [line for line in problems if "has no line in" not in line or not dropped]
            problems += [f"{dropped} rows of {table} are artefacts or of none of the eight classes."] if dropped else []
            classes = [name for name in GALAXY_CLASSES if any(one.label == name for one in found)]
        else:
            found, problems = labelled_pictures(folder, table)
            classes = sorted({one.label for one in found})
    place = {name: number for number, name in enumerate(classes)}
    entries = [Entry(one.path.relative_to(folder).as_posix(), place[one.label], one.split) for one in found]
    colours = 3 if config.channels == 3 else 1

    def picture(number: int) -> UInt8[Tensor, "channel y x"]:
        return read_picture(found[number].path, channels=3 if colours == 3 else 1)

    return ImageSource(folder.name or str(folder), classes, entries, picture, config, problems)


def _from_archive(path: Path, config: InputConfig) -> ImageSource:
    """Arrays of pixels, or JPEG files one after the other, with labels; or MedMNIST's three parts."""
    arrays = read_arrays(path, {}, what="a set of pictures")
    if {"train_images", "train_labels"} <= set(arrays):
        return _from_medmnist(path, arrays, config)
    name = next((name for name in LABEL_NAMES if name in arrays), None)
    if name is None:
        raise InputError(
            f"{path} holds {', '.join(sorted(arrays)[:6])} and no labels; call them label, with pixels in x or images."
        )
    labels = _whole_numbers(path, name, arrays[name])
    if "jpeg" in arrays and "offsets" in arrays:
        content, offsets = arrays["jpeg"].astype(np.uint8).tobytes(), arrays["offsets"].tolist()
        if len(offsets) != len(labels) + 1 or offsets[-1] > len(content) or sorted(offsets) != offsets:
            raise InputError(f"{path}, array offsets, does not divide the files into {len(labels)}; it is damaged.")

        def picture(place: int) -> UInt8[Tensor, "channel y x"]:
            part = content[offsets[place] : offsets[place + 1]]
            return read_picture(part, channels=3 if config.channels == 3 else 1, name=f"{path.name}, picture {place}")
    else:
        key = next((key for key in IMAGE_NAMES if key in arrays), None)
        if key is None:
            raise InputError(f"{path} holds {', '.join(sorted(arrays)[:6])} and no pictures; call them x or images.")
        pixels = pixel_array(path, key, arrays[key])
        require_length(path, {name: len(labels)}, count=len(pixels), of="pictures")

        def picture(place: int) -> UInt8[Tensor, "channel y x"]:
            return torch.from_numpy(pixels[place]).movedim(-1, 0)

    tests = arrays.get("is_test")
    if tests is not None:
        require_length(path, {"is_test": len(tests)}, count=len(labels), of="pictures")
    names = _names(arrays, labels)
    entries = [
        Entry(f"{place:06d}", int(label), "" if tests is None else "test" if tests[place] else "train")
        for place, label in enumerate(labels)
    ]
    unlabelled = sum(label < 0 for label in labels)
    problems = [f"{unlabelled} pictures of {path.name} have no label."] if unlabelled else []
    kept = [place for place, label in enumerate(labels) if label >= 0]
    if not kept:
        raise InputError(f"{path}, array {name}: no picture has a label of 0 or more.")
    return ImageSource(
        path.stem, names, [entries[place] for place in kept], lambda at: picture(kept[at]), config, problems
    )


def _from_medmnist(path: Path, arrays: dict[str, Any], config: InputConfig) -> ImageSource:
    """``train_images`` and the like; grey or colour."""
    entries, stacks = [], []
    for short, split in (("train", "train"), ("val", "validation"), ("test", "test")):
        if f"{short}_images" not in arrays or f"{short}_labels" not in arrays:
            continue
        pixels = pixel_array(path, f"{short}_images", arrays[f"{short}_images"])
        labels = _whole_numbers(path, f"{short}_labels", arrays[f"{short}_labels"].reshape(len(pixels), -1)[:, 0])
        stacks += list(pixels)
        entries += [Entry(f"{split}/{place:06d}", int(label), split) for place, label in enumerate(labels)]
    highest = max(entry.label for entry in entries)
    names = [str(number) for number in range(highest + 1)]
    return ImageSource(path.stem, names, entries, lambda at: torch.from_numpy(stacks[at]).movedim(-1, 0), config)


def pixel_array(path: Path, name: str, array: Array) -> Array:
    """An archive's pictures as uint8 (picture, y, x, channel); :class:`InputError` for anything else."""
    if array.dtype != np.uint8:
        raise InputError(f"{path}, array {name}, holds {array.dtype}; pixels of 0 to 255 (uint8) are needed.")
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3) or len(array) == 0:
        raise InputError(f"{path}, array {name}, has shape {array.shape}; (picture, y, x) or (…, 3) is needed.")
    return np.ascontiguousarray(array)


def _whole_numbers(path: Path, name: str, array: Array) -> list[int]:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{path}, array {name}, has shape {array.shape} and type {array.dtype}; class numbers are needed."
        )
    return [int(value) for value in array]


def _names(arrays: dict[str, Any], labels: Sequence[int]) -> list[str]:
    """Names of the classes where the archive has them, else numbers."""
    count = max(labels) + 1
    stored = arrays.get("class_names")
    if stored is not None and stored.ndim == 1 and len(stored) >= count and stored.dtype.kind in "US":
        return [one.decode() if isinstance(one, bytes) else str(one) for one in stored.tolist()]
    return [str(number) for number in range(count)]
