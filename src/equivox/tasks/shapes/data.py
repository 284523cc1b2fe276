"""From objects to the fields that a network sees: the same in training, evaluation and prediction.

An object is a set of points (atoms, points of a surface) or a volume. Points are turned as coordinates and become a
density on the device, a batch at a time; volumes are turned by cubic resampling about their centre ``(n - 1) / 2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from equivox.errors import InputError
from equivox.geometry.density import PADDING, gaussian_density
from equivox.geometry.residues import REACH_SIGMA
from equivox.geometry.voxelize import voxelize_meshes
from equivox.tasks.shapes.config import InputConfig

CENTRE_TOLERANCE = 1e-6
"""A rotation this near to one of the cube is done by moving voxels, without resampling."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points with their channel, in the frame of the grid, which is centred at the origin."""

    positions: Float[Tensor, "point 3"]
    channel: Int[Tensor, "point"]


@dataclass(frozen=True, slots=True)
class Grid:
    """A volume; its centre is the point that rotations leave in place."""

    volume: Float[Tensor, "channel x y z"]


@dataclass(frozen=True, slots=True)
class Triangles:
    """A mesh in the frame of the grid."""

    vertices: Float[Tensor, "vertex 3"]
    faces: Int[Tensor, "face 3"]


Content = Points | Grid | Triangles


@dataclass(frozen=True, slots=True)
class Shape:
    """One object's name, class and split.

    Parameters
    ----------
    id
        Unique in its source.
    label
        Index among the source's classes; -1 where it is not known.
    split
        ``train``, ``validation``, ``test``, or empty.
    sublabel
        A finer class, for retrieval; empty where there is none.
    """

    id: str
    label: int
    split: str
    sublabel: str = ""


@runtime_checkable
class ShapeSource(Protocol):
    """Objects that can be asked for one by one."""

    @property
    def name(self) -> str:
        """What the data are, in a word or two."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def shapes(self) -> Sequence[Shape]:
        """All objects."""
        ...

    @property
    def capacity(self) -> int:
        """Most points that an object has; 0 for volumes."""
        ...

    def content(self, index: int) -> Content:
        """The object itself."""
        ...


def of_split(source: ShapeSource, split: str) -> list[int]:
    """Positions of the objects of a split; ``"all"`` for every one."""
    return [index for index, shape in enumerate(source.shapes) if split in ("all", shape.split)]


def row_count(content: Content) -> int:
    """Rows of an object's longest table, which samples are padded to; 0 for a volume."""
    if isinstance(content, Points):
        return len(content.positions)
    if isinstance(content, Triangles):
        return max(len(content.vertices), len(content.faces))
    return 0


def as_sample(
    content: Content, config: InputConfig, *, capacity: int = 0, rotation: Float[Tensor, "3 3"] | None = None
) -> dict[str, Tensor]:
    """Tensors of one object, turned; points and triangles are padded to ``capacity`` so that objects can be stacked."""
    if isinstance(content, Grid):
        return {"volume": content.volume if rotation is None else rotate_volume(content.volume, rotation)}
    points = content.vertices if isinstance(content, Triangles) else content.positions
    if rotation is not None:
        points = points @ rotation.to(points).mT
    if isinstance(content, Triangles):
        return {
            "vertices": functional.pad(points, (0, 0, 0, max(0, capacity - len(points)))),
            "faces": functional.pad(content.faces, (0, 0, 0, max(0, capacity - len(content.faces))), value=PADDING),
        }
    channel = content.channel
    if config.normalization != "published":  # there, what lies outside the grid is pressed onto its border
        near = points.abs().amax(dim=1) < config.side * config.spacing / 2 + REACH_SIGMA * config.sigma
        points, channel = points[near], channel[near]
    missing = max(0, capacity - len(points))
    return {
        "positions": functional.pad(points, (0, 0, 0, missing)),
        "channel": functional.pad(channel, (0, missing), value=PADDING),
    }


def make_field(group: Mapping[str, Tensor], config: InputConfig) -> Float[Tensor, "batch channel x y z"]:
    """The field of a batch of samples, on their device."""
    if "volume" in group:
        return group["volume"].float()
    if "faces" in group:
        return voxelize_meshes(
            list(group["vertices"]),
            [faces[faces[:, 0] != PADDING] for faces in group["faces"]],
            side=config.side,
            spacing=config.spacing,
            mode="surface" if config.fill == "surface" else "occupancy",
        )
    positions, channel = group["positions"], group["channel"]
    count = max(1, int((channel != PADDING).sum(dim=1).max()))  # what lies behind is padding in all of them
    field = gaussian_density(
        positions[:, :count],
        channel[:, :count],
        channels=config.channels,
        side=config.side,
        spacing=config.spacing,
        sigma=config.sigma,
        normalization=config.normalization,
    )
    return field * config.scale


def rotate_volume(
    volume: Float[Tensor, "channel x y z"], rotation: Float[Tensor, "3 3"]
) -> Float[Tensor, "channel x y z"]:
    """Turn a volume about its centre ``(n - 1) / 2``: the value at ``p`` moves to ``rotation p``.

    Turns of the cube move voxels and are exact; all others resample by cubic splines, zeros outside.
    """
    steps = rotation.double().round()
    if float((rotation.double() - steps).abs().max()) < CENTRE_TOLERANCE and len(set(volume.shape[1:])) == 1:
        sources = steps.abs().argmax(dim=1).tolist()
        flipped = [axis + 1 for axis in range(3) if float(steps[axis, sources[axis]]) < 0]
        return volume.permute(0, *[source + 1 for source in sources]).flip(flipped).contiguous()
    inverse = rotation.double().T.numpy()
    centre = (np.array(volume.shape[1:], dtype=np.float64) - 1) / 2
    turned = [
        ndimage.affine_transform(
            part.numpy(), inverse, offset=centre - inverse @ centre, order=3, mode="constant", cval=0.0
        )
        for part in volume.double()
    ]
    return torch.from_numpy(np.stack(turned)).to(volume.dtype)


def fit_volume(volume: Float[Tensor, "channel x y z"], side: int) -> Float[Tensor, "channel side side side"]:
    """Bring a volume to a cube of ``side`` voxels about its centre: zeros outside, or the margin cut off.

    An axis whose length has another parity than ``side`` is shifted by half a voxel, by averaging neighbours.

    Raises
    ------
    InputError
        If anything that is not zero would be cut off.
    """
    shape = tuple(volume.shape[1:])
    for axis in (1, 2, 3):
        length = volume.shape[axis]
        if (length - side) % 2:
            padded = functional.pad(volume, _one_axis(axis, 1, 1))
            volume = 0.5 * (padded.narrow(axis, 0, length + 1) + padded.narrow(axis, 1, length + 1))
            length += 1
        margin = (side - length) // 2
        if margin >= 0:
            volume = functional.pad(volume, _one_axis(axis, margin, margin))
            continue
        lost = volume.narrow(axis, 0, -margin).abs().max(), volume.narrow(axis, length + margin, -margin).abs().max()
        if float(max(lost)) > 0:
            raise InputError(
                f"a volume of {shape} voxels holds something outside the {side} voxels of the grid; "
                f"give at least --side {length}."
            )
        volume = volume.narrow(axis, -margin, side)
    return volume.contiguous()


def _one_axis(axis: int, before: int, after: int) -> list[int]:
    """Padding of one spatial axis, as ``functional.pad`` wants it."""
    padding = [0] * 6
    padding[2 * (3 - axis)], padding[2 * (3 - axis) + 1] = before, after
    return padding
