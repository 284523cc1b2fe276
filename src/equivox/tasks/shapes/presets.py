"""The recipes of training by name: the published ones, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isqrt
from typing import Any

from equivox.errors import ConfigError, did_you_mean
from equivox.tasks.shapes.config import InputConfig, ShapeTraining

_TETRIS_INPUT = InputConfig(kind="tetris", side=36, cell=5.0, enlarge="zoom")
_CATH_INPUT = InputConfig(kind="points", side=50, spacing=2.0, sigma=1.0, normalization="published")
_SHREC_INPUT = InputConfig(kind="mesh", side=64, spacing=2.0 / 64.0, fill="occupancy", up="y")
CATH_DECAY = {1: 0.94, 2: 0.97, 4: 0.985, 8: 0.992, 16: 0.996}
"""Factor of the learning rate per epoch, by the reduction of the training set (data_shapes.md A3)."""
CATH_PENALTY = {1: 1e-8, 2: 1.78e-8, 4: 3.16e-8, 8: 5.62e-8, 16: 1e-7}
CATH_CNN_PENALTY = {1: 1e-7, 2: 3.16e-7, 4: 1e-6, 8: 3.16e-6, 16: 1e-5}
CATH_CNN_DROPOUT = {1: 0.01, 2: 0.01125, 4: 0.0125, 8: 0.01375, 16: 0.015}


def _tetris(reduction: int, *, architecture: str = "tetris", preset: str = "tetris") -> ShapeTraining:
    """One orientation of each piece, all eight in every step, no selection (steerable.md 5.1)."""
    return ShapeTraining(
        preset=preset, network={"architecture": architecture}, input=_TETRIS_INPUT, epochs=250, batch_size=8, lr=0.1,
        decay_start=100, decay=0.98, orientation="fixed", select="last", validate_every=10,
    )  # fmt: skip


def _shrec17(reduction: int) -> ShapeTraining:
    """Adam in three steps, as many models of each class as the smallest has (steerable.md 5.2)."""
    return ShapeTraining(
        preset="shrec17", network={"architecture": "shrec17"}, input=_SHREC_INPUT, epochs=2000, batch_size=32, lr=0.1,
        steps=((500, 0.1), (1000, 0.01)), orientation="uniform", balanced=True, select="accuracy", validate_every=100,
        reduction=reduction,
    )  # fmt: skip


def _cath(reduction: int, *, plain: bool = False) -> ShapeTraining:
    """Both networks of the CATH experiment; epochs and decay grow with the reduction (data_shapes.md A3)."""
    factor = reduction
    penalty = (CATH_CNN_PENALTY if plain else CATH_PENALTY)[factor]
    network = (
        {"architecture": "resnet34", "dropout": CATH_CNN_DROPOUT[factor]}
        if plain
        else {"architecture": "se3resnet34_small", "dropout": 0.1}
    )
    return ShapeTraining(
        preset="cath-cnn" if plain else "cath", network=network, input=_CATH_INPUT, epochs=100 * factor, batch_size=16,
        lr=5e-4 if plain else 0.1, decay_start=40 * factor, decay=CATH_DECAY[factor], l1=penalty, l2=penalty,
        orientation="uniform", drop_last=True, select="accuracy", burn_in=40 * factor, validate_every=factor,
        reduction=factor,
    )  # fmt: skip


_OURS: Mapping[str, Any] = {"cosine": True, "settle": True, "select": "last"}
"""What our recipes share: no selection, so that validation objects stay unseen by every choice."""


def _tetris_equivox(reduction: int) -> ShapeTraining:
    """Our network on equal cells of four voxels in an odd grid, far below the published cost."""
    network = {
        "architecture": "shape_net", "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (5, 5), "strides": (2, 1),
        "features": 32, "lowpass": 5.0,
    }  # fmt: skip
    return ShapeTraining(
        preset="tetris-equivox", network=network, input=InputConfig(kind="tetris", side=29, cell=4.0), epochs=50,
        batch_size=8, lr=0.03, decay_start=25, orientation="fixed", validate_every=10, **_OURS,
    )  # fmt: skip


def _cath_equivox(reduction: int) -> ShapeTraining:
    """Our network on 17 voxels of 4.5 ångström, five channels by what the chain does."""
    network = {
        "architecture": "shape_net", "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (3, 5), "strides": (2, 1),
        "features": 64, "lowpass": 1.0, "dropout": 0.2, "hidden": 64,
    }  # fmt: skip
    return ShapeTraining(
        preset="cath-equivox", network=network,
        input=InputConfig(kind="points", side=17, channels=5, spacing=4.5, sigma=3.0, trace="chain"),
        epochs=16 * isqrt(reduction), batch_size=16, lr=0.02, optimizer="adamw", warmup=1, orientation="none",
        class_weights=True, label_smoothing=0.05, drop_last=True, validate_every=isqrt(reduction),
        reduction=reduction, **_OURS,
    )  # fmt: skip


def _residue_equivox(reduction: int) -> ShapeTraining:
    """Our network on boxes of 17 voxels of 1.2 ångström about a residue, in its own frame."""
    network = {
        "architecture": "shape_net", "fields": ((2, 2, 1), (8, 3, 2), (16, 6, 4)), "kernel_sizes": (3, 5, 3),
        "strides": (2, 1, 1), "features": 96, "lowpass": 1.0, "dropout": 0.1, "hidden": 96,
    }  # fmt: skip
    return ShapeTraining(
        preset="residue-equivox", network=network,
        input=InputConfig(kind="environment", side=17, channels=4, spacing=1.2, sigma=0.9, frame="local"),
        epochs=6, batch_size=32, lr=0.02, optimizer="adamw", orientation="none", drop_last=True, reduction=reduction,
        **_OURS,
    )  # fmt: skip


def _shapes_equivox(reduction: int) -> ShapeTraining:
    """Our network on points of meshes, 21 voxels, trained as they stand.

    Gaussians of 1.6 voxels: with 1 voxel the field aliases at the first stride, and turned objects lose 0.09.
    """
    network = {
        "architecture": "shape_net", "fields": ((2, 2, 1), (8, 3, 2)), "kernel_sizes": (3, 5), "strides": (2, 1),
        "features": 64, "lowpass": 1.0, "dropout": 0.1,
    }  # fmt: skip
    return ShapeTraining(
        preset="shapes-equivox", network=network,
        input=InputConfig(kind="mesh", side=21, spacing=0.125, sigma=0.2, points=1000, up="y"),
        epochs=8, batch_size=16, lr=0.02, warmup=1, optimizer="adamw", orientation="none", drop_last=True,
        reduction=reduction, **_OURS,
    )  # fmt: skip


PRESETS: Mapping[str, Callable[[int], ShapeTraining]] = {
    "tetris": _tetris,
    "tetris-cnn": lambda reduction: _tetris(reduction, architecture="tetris_cnn", preset="tetris-cnn"),
    "shrec17": _shrec17,
    "cath": _cath,
    "cath-cnn": lambda reduction: _cath(reduction, plain=True),
    "tetris-equivox": _tetris_equivox,
    "cath-equivox": _cath_equivox,
    "residue-equivox": _residue_equivox,
    "shapes-equivox": _shapes_equivox,
}
"""Name -> recipe, given the reduction of the training set."""


def shape_preset(name: str, *, reduction: int = 1) -> ShapeTraining:
    """A recipe by name.

    Parameters
    ----------
    name
        A key of :data:`PRESETS`.
    reduction
        Train on one in so many objects of each class; the CATH recipes know 1, 2, 4, 8 and 16, and lengthen with it.

    Raises
    ------
    ConfigError
        If the name is unknown, or the recipe has no such reduction.

    Examples
    --------
    >>> shape_preset("tetris").epochs
    250
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r} is unknown{did_you_mean(name, PRESETS)}; known are {', '.join(PRESETS)}.")
    if name.startswith("tetris") and reduction != 1:
        raise ConfigError(
            f"--reduction {reduction}: there are eight pieces of Tetris, one of each class; leave it out."
        )
    if name in ("cath", "cath-cnn") and reduction not in CATH_DECAY:
        raise ConfigError(f"--reduction {reduction}: the published recipe has 1, 2, 4, 8 and 16.")
    return PRESETS[name](reduction)
