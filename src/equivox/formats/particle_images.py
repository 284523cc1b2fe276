"""Images of particles out of their stacks, each stack opened once and never read whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from equivox.errors import InputError
from equivox.formats.mrc import MrcImage, read_mrc, require_finite
from equivox.formats.particles import Particles


class ParticleImages:
    """The images that a table of particles names.

    A stack's path is looked for from the working folder (RELION's project), then from the folder of the table and all
    folders above it.

    Parameters
    ----------
    particles
        The table.
    folder
        Where stacks are looked for first.

    Raises
    ------
    InputError
        If the table names no images.
    """

    def __init__(self, particles: Particles, *, folder: Path | str | None = None) -> None:
        self._particles = particles
        self._paths, self._indices = particles.require_images()
        self._folder = None if folder is None else Path(folder)
        self._open: dict[str, MrcImage] = {}

    def __len__(self) -> int:
        return len(self._particles)

    def read(self, indices: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "image y x"]:
        """Images by row of the table, row 0 of each first.

        Raises
        ------
        InputError
            If a stack is missing or damaged, is shorter than the table says, holds samples that are no numbers, or
            the images differ in size.
        """
        images: list[np.ndarray] = []
        for index in np.asarray(indices, dtype=np.int64).tolist():
            stack = self.stack(index)
            data = stack.data if stack.data.ndim == 3 else stack.data[None]
            position = int(self._indices[index])
            if position >= len(data):
                raise InputError(
                    f"{self._particles.path}, row {index + 1}: image {position + 1} of {stack.path} is asked for, "
                    f"which holds {len(data)}; give the stack that belongs to this table."
                )
            image = np.asarray(data[position], dtype=np.float32)
            require_finite(image, f"image {position + 1} of {stack.path}")
            if images and image.shape != images[0].shape:
                raise InputError(
                    f"{self._particles.path}, row {index + 1}: an image of {image.shape[1]} x {image.shape[0]} pixels "
                    f"among images of {images[0].shape[1]} x {images[0].shape[0]}; bring them to one size."
                )
            images.append(image)
        return np.stack(images) if images else np.zeros((0, 0, 0), dtype=np.float32)

    def stack(self, index: int) -> MrcImage:
        """The file that a row's image lies in."""
        name = self._paths[index]
        if name not in self._open:
            self._open[name] = read_mrc(self._find(name, index), check_finite=False)
        return self._open[name]

    def _find(self, name: str, index: int) -> Path:
        given = Path(name)
        beside = self._particles.path.resolve().parents
        for folder in (self._folder, Path(), *beside):
            if folder is not None and (folder / given).exists():
                return folder / given
        flat = self._particles.path.parent / given.name
        if flat.exists():
            return flat
        raise InputError(
            f"{self._particles.path}, row {index + 1}: the stack {name} does not exist; run this in the project's "
            f"folder or give the folder with the stacks."
        )
