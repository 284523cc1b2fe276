"""Labelled micrographs at the working size, in the two parts of a training; the split is by micrograph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, InputError
from equivox.formats.micrograph_names import match_names
from equivox.formats.micrographs import MicrographInput, find_micrographs
from equivox.formats.tables import read_table
from equivox.run.seeds import generator_for
from equivox.tasks.pick.config import PickSource
from equivox.tasks.pick.labels import LabelContrast, Labels, fitted_labels, label_contrast, read_labels
from equivox.tasks.pick.prepare import Prepared, prepare_micrograph

VALIDATION_NAMES = ("val", "validation", "valid", "dev")
TRAINING_NAMES = ("train", "training")
MANY, CORNER = 40, 0.55
"""So many labels that all lie in this share of width and height are suspicious."""
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class LabelledMicrograph:
    """One micrograph as training and evaluation need it; particles are dark.

    Parameters
    ----------
    name
        As given.
    image
        (y, x), normalised, particles dark.
    labels_px, negatives_px
        Positions (y, x) in working pixels of particles, and of places without one.
    keep
        1 where something may be learned or picked; None: everywhere.
    prepared
        Sizes and factors.
    """

    name: str
    image: Float[Tensor, "y x"]
    labels_px: Float[Tensor, "label 2"]
    negatives_px: Float[Tensor, "negative 2"]
    keep: Float[Tensor, "y x"] | None
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """The two parts of one source, and what a user should know about them.

    Parameters
    ----------
    training, validation
        Micrographs with labels.
    contrast
        ``dark`` or ``bright``: how the particles were in the files.
    unmatched
        Names in coordinate files that fit no micrograph -> why.
    warnings
        Sentences.
    digest
        Changes when other micrographs or labels take part.
    """

    training: tuple[LabelledMicrograph, ...]
    validation: tuple[LabelledMicrograph, ...]
    contrast: str
    unmatched: dict[str, str]
    warnings: tuple[str, ...]
    digest: str

    @property
    def labels(self) -> int:
        """Labels in all."""
        return sum(len(one.labels_px) for one in (*self.training, *self.validation))


def open_labelled(
    source: PickSource, *, radius_px: float, seed: int, progress: Progress | None = None, split: bool = True
) -> LabelledSet:
    """Read micrographs and labels, bring both to the working size, and split by micrograph.

    Parameters
    ----------
    source
        Files, radius, contrast, split.
    radius_px
        The radius in working pixels.
    seed
        Of the split, where no table gives one.
    progress
        Called with (done, total, micrograph).
    split
        False: all micrographs are in ``validation`` (for an evaluation).

    Raises
    ------
    InputError
        If nothing can be read, names fit nothing, coordinates lie outside or upside down, or one part would be empty.
    """
    entries = find_micrographs(source.micrographs)
    notes = [entry.problem for entry in entries if entry.problem]
    usable = [entry for entry in entries if not entry.problem]
    if not usable:
        raise InputError(notes[0] if notes else "no micrograph was given.")
    names = [str(entry.path) for entry in usable]
    labels = read_labels(source.coordinates, names)
    negatives = read_labels(source.negatives, names) if source.negatives else None
    masks = _masks(source, names)
    notes += [*labels.warnings, *(negatives.warnings if negatives else ())]
    notes += _unmatched_note(labels)
    labelled = [index for index in range(len(usable)) if len(labels.yx_px[index])]
    bare = len(usable) - len(labelled)
    if bare:
        notes.append(
            f"{bare} of {len(usable)} micrographs have no label and are left out, for example "
            f"{usable[labels.without[0]].name}; if they hold no particle, label them with --negatives."
        )
    ready: list[Prepared] = []
    kept: list[int] = []
    for count, index in enumerate(labelled):
        try:
            one = prepare_micrograph(
                usable[index].path, radius_angstrom=source.radius_angstrom, radius_px=radius_px,
                pixel_size_angstrom=source.pixel_size_angstrom, mask=masks.get(index),
            )  # fmt: skip
        except InputError as error:
            notes.append(str(error))
        else:
            ready.append(one)
            kept.append(index)
            notes += one.warnings
        if progress is not None:
            progress(count + 1, len(labelled), usable[index].name)
    if not ready:
        raise InputError(notes[-1] if notes else "no labelled micrograph could be used.")
    points, lost = _working_points(source, ready, [labels.yx_px[index] for index in kept])
    notes += lost
    empty = torch.zeros(0, 2, dtype=torch.float64)
    away = [empty] * len(kept) if negatives is None else [negatives.yx_px[index] for index in kept]
    far, lost = _working_points(source, ready, away)
    notes += lost
    found = label_contrast(ready, points, radius_px=radius_px)
    notes += _corner_note(ready, points)
    contrast = _contrast(source, found, notes)
    sign = 1.0 if contrast == "dark" else -1.0
    micrographs = [
        LabelledMicrograph(usable[index].name, sign * one.image, own.float(), other.float(), one.keep, one)
        for index, one, own, other in zip(kept, ready, points, far, strict=True)
    ]
    used = [usable[index] for index in kept]
    training, validation = _split(source, micrographs, used, seed) if split else ([], micrographs)
    if not split and source.split is not None:
        parts = _parts_by_table(source.split, used)
        validation = [one for one, part in zip(micrographs, parts, strict=True) if part in ("val", "test")]
        if not validation:
            raise InputError(f"{source.split} names none of the labelled micrographs as val or test.")
    return LabelledSet(
        tuple(training), tuple(validation), contrast, dict(labels.unmatched), tuple(dict.fromkeys(notes)),
        _digest(micrographs, training),
    )  # fmt: skip


def _working_points(
    source: PickSource, ready: Sequence[Prepared], points: Sequence[Tensor]
) -> tuple[list[Tensor], list[str]]:
    """Coordinates of files as working positions."""
    moved, notes = [], []
    for one, own in zip(ready, points, strict=True):
        inside, lost = fitted_labels(
            own, one.file_size_px, flip_y=source.flip_y, scale=source.coordinate_scale, name=one.name
        )
        moved.append(one.to_working(inside))
        notes += lost
    return moved, notes


def _contrast(source: PickSource, found: LabelContrast, notes: list[str]) -> str:
    """Dark or bright, by what stands at the labels; labels that are upside down are refused."""
    if found.upside_down:
        raise InputError(
            f"The labels fit the images upside down: the contrast at them is {found.mean:.2f}, with y counted from "
            f"the last row {found.mean_flipped:.2f}; pass --{'no-' if source.flip_y else ''}flip-y."
        )
    dark = found.mean < 0.0
    if source.contrast == "auto":
        if not found.found:
            notes.append(
                f"Particles hardly stand out at the labels (mean {found.mean:.2f} of the spread, error "
                f"{found.error:.2f}); they are taken as {'dark' if dark else 'bright'}: check labels, pixel size and "
                f"--contrast."
            )
        return "dark" if dark else "bright"
    if found.found and dark != (source.contrast == "dark"):
        notes.append(
            f"--contrast {source.contrast} is given, but the images are {'darker' if dark else 'brighter'} at the "
            f"labels (mean {found.mean:.2f} of the spread)."
        )
    return source.contrast


def _corner_note(ready: Sequence[Prepared], points: Sequence[Tensor]) -> list[str]:
    """Labels that never reach the far half of any micrograph were probably made on smaller pictures."""
    count = sum(len(own) for own in points)
    if count < MANY or sum(len(own) > 0 for own in points) < 2:
        return []
    shares = [
        own.amax(dim=0) / torch.tensor(one.image.shape) for one, own in zip(ready, points, strict=True) if len(own)
    ]
    reach = float(torch.stack(shares).max())
    if reach > CORNER:
        return []
    return [
        f"All {count} labels lie in the first {reach:.0%} of width and height: they may count binned pixels; then give "
        f"--coordinate-scale {round(1.0 / reach)}."
    ]


def _split(
    source: PickSource, micrographs: list[LabelledMicrograph], entries: Sequence[MicrographInput], seed: int
) -> tuple[list[LabelledMicrograph], list[LabelledMicrograph]]:
    """Training and validation, by the table or by the seed."""
    if len(micrographs) < 2:
        raise InputError(
            f"{micrographs[0].name} is the only micrograph with labels; training needs two or more, so that one can "
            f"be kept for validation: label another."
        )
    if source.split is None:
        count = max(1, round(source.validation_share * len(micrographs)))
        count = min(count, len(micrographs) - 1)
        order = torch.randperm(len(micrographs), generator=generator_for(seed, "split")).tolist()
        chosen = set(order[:count])
        held: list[bool | None] = [index in chosen for index in range(len(micrographs))]
    else:
        held = _held_by_table(source.split, entries)
        micrographs = [one for one, part in zip(micrographs, held, strict=True) if part is not None]
        held = [part for part in held if part is not None]
    training = [one for one, part in zip(micrographs, held, strict=True) if not part]
    validation = [one for one, part in zip(micrographs, held, strict=True) if part]
    if not training or not validation:
        raise InputError(
            f"{source.split} leaves {len(training)} micrographs for training and {len(validation)} for validation; "
            f"each needs one or more."
        )
    return training, validation


def _held_by_table(path: str, entries: Sequence[MicrographInput]) -> list[bool | None]:
    """True for validation, False for training, None for test or a micrograph not listed."""
    held: dict[str, bool | None] = {"val": True, "train": False}
    return [held.get(part) for part in _parts_by_table(path, entries)]


def _parts_by_table(path: str, entries: Sequence[MicrographInput]) -> list[str]:
    """``train``, ``val``, ``test`` or nothing for each micrograph."""
    rows = read_table(path, required=("micrograph", "split"))
    matching = match_names([row.text("micrograph") for row in rows], [str(entry.path) for entry in entries])
    parts = [""] * len(entries)
    for row, index in zip(rows, matching.found, strict=True):
        part = row.text("split").lower()
        named = "val" if part in VALIDATION_NAMES else "train" if part in TRAINING_NAMES else part
        if named not in ("train", "val", "test"):
            raise InputError(f"{row.where}, column split, holds {part!r}; allowed are train, val and test.")
        if index >= 0:
            parts[index] = named
    return parts


def _masks(source: PickSource, names: Sequence[str]) -> dict[int, str]:
    """Mask of each micrograph that has one, by name."""
    return masks_of(source.masks, names)


def masks_of(masks: Sequence[str], names: Sequence[str]) -> dict[int, str]:
    """Mask file of each micrograph (by index) that has one.

    Raises
    ------
    InputError
        If masks are given and none fits a micrograph.
    """
    if not masks:
        return {}
    files = [str(entry.path) for entry in find_micrographs(masks) if not entry.problem]
    matching = match_names([file.replace("_mask", "") for file in files], names)
    found = {index: file for index, file in zip(matching.found, files, strict=True) if index >= 0}
    if not found:
        raise InputError(f"None of the {len(files)} masks fits a micrograph by name; name them like the micrographs.")
    return found


def _unmatched_note(labels: Labels) -> list[str]:
    """One sentence about names that fit no micrograph."""
    if not labels.unmatched:
        return []
    name, reason = next(iter(labels.unmatched.items()))
    return [f"{len(labels.unmatched)} names in the coordinates fit no micrograph, for example {name!r}: {reason}."]


def _digest(micrographs: Sequence[LabelledMicrograph], training: Sequence[LabelledMicrograph]) -> str:
    known = {id(one) for one in training}
    text = "\n".join(
        f"{one.name} {len(one.labels_px)} {float(one.labels_px.sum()):.3f} {float(one.image.square().sum()):.4g} "
        f"{id(one) in known}"
        for one in micrographs
    )
    return f"{len(micrographs)} micrographs, {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def require_labels(parts: Sequence[LabelledMicrograph], *, least: int = 10) -> None:
    """Refuse to train on next to nothing.

    Raises
    ------
    ConfigError
        If there are fewer than ``least`` labels.
    """
    count = sum(len(one.labels_px) for one in parts)
    if count < least:
        raise ConfigError(f"there are {count} labels for training; {least} are needed at least: label more particles.")
