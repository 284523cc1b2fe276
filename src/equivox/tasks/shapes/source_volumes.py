"""Volumes with official splits: MedMNIST3D (data_shapes.md C4)."""

from __future__ import annotations

from pathlib import Path

from equivox.formats.medmnist import read_medmnist
from equivox.tasks.shapes.config import InputConfig
from equivox.tasks.shapes.data import Content, Grid, Shape, fit_volume

PARTS = {"train": "train", "val": "validation", "test": "test"}


class MedMnistSource:
    """Volumes of a MedMNIST3D archive, values between 0 and 1, on the grid of the input.

    Parameters
    ----------
    path
        The archive.
    config
        Side of the grid.

    Raises
    ------
    InputError
        If the file cannot be used.
    """

    def __init__(self, path: Path, config: InputConfig) -> None:
        found = read_medmnist(path)
        self.name = path.name
        self.side = config.side
        self.classes = tuple(str(label) for label in range(found.classes))
        self.capacity = 0
        shapes: list[Shape] = []
        self._images = []
        for split, part in PARTS.items():
            held = found.splits[split]
            for row, label in enumerate(held.labels.tolist()):
                shapes.append(Shape(id=f"{split}/{row:05d}", label=label, split=part))
                self._images.append(held.images[row])
        self.shapes = tuple(shapes)

    def content(self, index: int) -> Content:
        """One volume."""
        return Grid(fit_volume(self._images[index][None].float() / 255.0, self.side))
