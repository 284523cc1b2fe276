"""A pose model that is ready to be used: ``load_model(name_or_folder).predict(scan)``."""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from equivox.errors import EquivoxError, InputError, ModelFolderError
from equivox.formats.nifti import read_mask, read_volume
from equivox.geometry.space import Volume
from equivox.tasks.pose.estimate import Estimator, PoseEstimate
from equivox.weights.folder import ModelFolder, find_model

LEAST_SIDE_MM, LARGEST_SIDE_MM, LARGEST_MM3, FARTHEST_MM = 12.0, 2000.0, 5e8, 1e5
"""Fields of view outside are taken for damaged headers: a side of 3 voxels of the finder grid to 2 m, half a cubic
metre, 100 m from the origin."""
POSE_ESTIMATORS = {
    "equivox": "equivox.tasks.pose.estimator:HeadEstimator",
    "published": "equivox.tasks.pose.published:PublishedEstimator",
    "mended": "equivox.tasks.pose.published:PublishedEstimator",
}
"""``behaviour`` in ``config.json`` -> class with ``from_folder(folder, device)``."""


@dataclass(frozen=True, slots=True)
class PoseModel:
    """A pose model that is ready to be used.

    Parameters
    ----------
    folder
        Where it came from.
    estimator
        What does the work.
    device
        Where it runs.
    """

    folder: ModelFolder
    estimator: Estimator
    device: str

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        return self.folder.name

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        """Pose of the object in one volume; an input that cannot be used raises, see :class:`Estimator`."""
        require_head_sized(volume)
        started = time.perf_counter()
        with torch.inference_mode():
            answer = self.estimator.estimate(volume, mask=mask)
        return answer.with_seconds(time.perf_counter() - started)

    def follow(self, volume: Volume, before: PoseEstimate | None) -> PoseEstimate:
        """Pose in the next frame of a series: the frame alone, or else the place where the frame before had the object.

        Saturated slices, blur and noise can hide a head from the finder that is still where it was. The second look is
        taken only if its pose is vouched for (status ``ok``); ``details`` then holds ``followed`` = 1. A model of the
        published behaviour does not follow.

        Parameters
        ----------
        volume
            The frame.
        before
            The last estimate with a pose and a mask, on any grid; None: there is none yet.
        """
        alone = self.estimate(volume)
        if alone.has_pose or before is None or before.mask is None or self.folder.config["behaviour"] != "equivox":
            return alone
        mask = before.mask.resample(volume.affine, volume.shape, interpolation="nearest")
        if not bool((mask.data > 0.5).any()):
            return alone
        again = self.estimate(volume, mask=mask)
        if again.status != "ok":
            return alone
        told = (*again.warnings, "The head was not found in this frame alone, but where the frame before had it.")
        details = {**again.details, "followed": 1.0}
        return replace(again, warnings=told, details=details, seconds=alone.seconds + again.seconds)

    def predict(self, scan: Volume | Path | str, *, mask: Volume | Path | str | None = None) -> PoseEstimate:
        """Pose of the object in a volume or a 3D file, as `equivox pose predict` writes it.

        Parameters
        ----------
        scan
            A volume of one channel, or the path of a NIfTI or MGH file with one frame.
        mask
            The object, on the scan's grid: replaces the localisation.

        Returns
        -------
        The estimate. A file that cannot be read raises; a volume in which the estimator cannot work gives status
        ``failed`` with the reason.

        Raises
        ------
        InputError
            If a file cannot be read, is a series, or the mask does not fit.

        Examples
        --------
        >>> model = load_pose_model("fetal-head-epi")  # doctest: +SKIP
        >>> model.predict("scan.nii.gz").world_from_head  # doctest: +SKIP
        """
        volume = scan if isinstance(scan, Volume) else read_volume(scan)
        inside = read_mask(mask, volume) if isinstance(mask, Path | str) else mask
        try:
            return self.estimate(volume, mask=inside)
        except EquivoxError as error:
            return PoseEstimate("failed", reason=str(error))


def require_head_sized(volume: Volume) -> None:
    """Refuse fields of view that no scan of a head has: a damaged header would otherwise ask for all the memory.

    Raises
    ------
    InputError
        If a side is below 12 mm or above 2 m, the whole is larger than half a cubic metre, or it lies 100 m away.
    """
    sides = [size * step for size, step in zip(volume.shape, volume.voxel_size_mm, strict=True)]
    shown = " x ".join(f"{side:.4g}" for side in sides)
    if min(sides) < LEAST_SIDE_MM:
        raise InputError(f"{volume.name} covers {shown} mm, too little to hold a head; repair its voxel size.")
    if float(volume.affine[:3, 3].abs().max()) > FARTHEST_MM:
        raise InputError(f"{volume.name} lies more than {FARTHEST_MM / 1000:g} m from its origin; repair its affine.")
    if math.prod(sides) > LARGEST_MM3 or max(sides) > LARGEST_SIDE_MM:
        raise InputError(f"{volume.name} covers {shown} mm, more than any scan of a head does; repair its voxel size.")


def open_pose_model(
    folder: ModelFolder, device: str = "cpu", *, behaviour: Literal["published", "mended"] | None = None
) -> PoseModel:
    """Build the pose model of a folder that was read.

    Parameters
    ----------
    folder
        What :func:`equivox.weights.folder.find_model` gives.
    device
        ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    behaviour
        For an imported model, instead of the folder's own; ignored for models of our own kind, which have one.

    Raises
    ------
    ModelFolderError
        If the model is broken, or of another task or behaviour.
    """
    task, kind = folder.config["task"], folder.config["behaviour"]
    if task != "pose":
        raise ModelFolderError(
            f"{folder.path} holds a model for the task {task!r}; equivox pose needs one for the task 'pose'."
        )
    target = POSE_ESTIMATORS.get(kind)
    if target is None:
        known = ", ".join(POSE_ESTIMATORS)
        raise ModelFolderError(f"{folder.path} has the behaviour {kind!r}; this version knows {known}.")
    module, _, name = target.partition(":")
    constructor: Any = getattr(importlib.import_module(module), name)
    choice = {} if behaviour is None or kind == "equivox" else {"behaviour": behaviour}
    return PoseModel(folder, constructor.from_folder(folder, device, **choice), device)


def load_pose_model(
    name_or_folder: str | Path, device: str = "cpu", *, behaviour: Literal["published", "mended"] | None = None
) -> PoseModel:
    """Load a pose model by the name of its folder or by a path; see :func:`open_pose_model`."""
    return open_pose_model(find_model(name_or_folder), device, behaviour=behaviour)
