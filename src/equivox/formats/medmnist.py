"""MedMNIST3D archives (``.npz``): small medical volumes with labels and the official splits.

Yang J. et al., "MedMNIST v2", Scientific Data 10, 41 (2023), CC BY 4.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import read_arrays, require_file, require_length

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class MedMnistSplit:
    """Volumes of one split, 0 to 255, and the class index of each."""

    images: UInt8[Tensor, "volume x y z"]
    labels: Int[Tensor, " volume"]


@dataclass(frozen=True, slots=True)
class MedMnistSet:
    """An archive: splits ``train``, ``val`` and ``test``, and how many classes there are over all of them."""

    path: Path
    splits: dict[str, MedMnistSplit]
    classes: int

    @property
    def side(self) -> int:
        """Voxels along each axis."""
        return int(self.splits["train"].images.shape[1])


def read_medmnist(path: Path | str) -> MedMnistSet:
    """Read a three-dimensional MedMNIST archive with one label per volume.

    Raises
    ------
    InputError
        If the file is missing, broken or another kind of archive; images are flat, no cubes, or not uint8; labels
        are missing, several per volume, negative, or a class of validation or test never occurs in training.
    """
    path = require_file(path)
    required = {f"{split}_images": 4 for split in SPLITS} | {f"{split}_labels": 2 for split in SPLITS}
    arrays = read_arrays(path, required, what="a MedMNIST3D archive")
    splits: dict[str, MedMnistSplit] = {}
    for split in SPLITS:
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.dtype.kind != "u" or images.dtype.itemsize != 1:
            raise InputError(f"{path}, array {split}_images, holds {images.dtype}; MedMNIST stores uint8.")
        if len(images) == 0 or len(set(images.shape[1:])) != 1:
            raise InputError(f"{path}, array {split}_images, has shape {images.shape}; at least one cube is needed.")
        require_length(path, {f"{split}_labels": len(labels)}, count=len(images), of="volumes")
        if labels.shape[1] != 1 or labels.dtype.kind not in "iu" or int(labels.min()) < 0:
            raise InputError(
                f"{path}, array {split}_labels, has shape {labels.shape} and type {labels.dtype}; one class index "
                f"from 0 per volume is needed (multi-label sets are not read)."
            )
        splits[split] = MedMnistSplit(torch.from_numpy(images), torch.from_numpy(labels[:, 0].astype("int64")))
    trained = set(splits["train"].labels.tolist())
    for split in SPLITS[1:]:
        unseen = sorted(set(splits[split].labels.tolist()) - trained)
        if unseen:
            raise InputError(f"{path}: class {unseen[0]} occurs in {split} and never in train; it cannot be learnt.")
    sides = {int(part.images.shape[1]) for part in splits.values()}
    if len(sides) != 1:
        raise InputError(f"{path}: the splits have volumes of {sorted(sides)} voxels a side; one size is needed.")
    return MedMnistSet(path, splits, max(trained) + 1)
