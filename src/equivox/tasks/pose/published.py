"""E(3)-Pose on one volume: segment, crop, rotate; as published, or with its flaws mended.

Flaw numbers (F4, F7 ...) are those of the specification's table; each mend has a test named after it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import ConfigError, InputError, ModelFolderError
from equivox.geometry.rotations import Pose, nearest_rotation
from equivox.geometry.space import Volume
from equivox.nets.object_symmetry import read_field, spread_deg
from equivox.nets.pose import PoseNet
from equivox.nets.readout import ReadOut
from equivox.nets.unet import UNet
from equivox.tasks.pose.estimate import PoseEstimate, Status
from equivox.tasks.pose.published_frames import matrix_of, published_matrix
from equivox.tasks.pose.published_grid import (
    centered_cube,
    covering_input,
    object_extent,
    rotation_input,
    segmentation_input,
)
from equivox.tasks.pose.published_masks import (
    OBJECT,
    center_of_mask,
    classify,
    component_count,
    default_thresholds,
    largest_component,
    voxels_to_border,
)
from equivox.weights.folder import ModelFolder, read_model_folder

Behaviour = Literal["published", "mended"]


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """What the networks' shapes do not say; the defaults are the published values."""

    voxel_size_mm: float = 3.0
    """Isotropic working grid."""
    segment_size: int = 128
    """Side of the U-Net's input [voxels]."""
    rotate_size: int = 64
    """Longest side of the E(3)-CNN's input [voxels]."""
    thresholds: tuple[float, ...] = ()
    """Least probability per class; empty: 0.9 and 0.8, then none (-1)."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The object on the U-Net's grid, and the part of that grid which was imaged."""

    image: Volume
    imaged: Bool[Tensor, "x y z"]
    mask: Bool[Tensor, "x y z"]
    components: int
    probability: float


@dataclass(frozen=True, slots=True)
class _Turned:
    """The object's rotation in the array axes of the U-Net's grid."""

    read: ReadOut
    spread_deg: float


class PublishedEstimator:
    """Pose of the object that an imported pair of networks was trained on.

    Parameters
    ----------
    segment, rotate
        The two networks; moved to ``device`` and set to evaluation.
    behaviour
        ``"published"``: grids, thresholds, crops and pooling of the original, so that its checkpoints give their
        numbers. Left-handed files alone are brought to RAS first, since the original's answer for them is a
        reflection. ``"mended"``: every file is brought to RAS, no part of the field of view is cut off in silence, the
        object is where its own probability says so, and the E(3)-CNN always sees a cube centred on it.
    settings
        Sizes and thresholds.
    device
        Where the networks run.

    Raises
    ------
    ConfigError
        If the thresholds do not fit the classes.
    """

    def __init__(
        self,
        segment: UNet,
        rotate: PoseNet,
        *,
        behaviour: Behaviour = "mended",
        settings: PublishedSettings | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.behaviour = behaviour
        self.settings = settings or PublishedSettings()
        self.device = torch.device(device)
        self.segment: UNet = segment.to(self.device, memory_format=_layout(self.device)).eval()  # type: ignore[call-overload]
        self.rotate = rotate.to(self.device).eval()
        classes = segment.head.out_channels
        self.thresholds = self.settings.thresholds or default_thresholds(classes)
        if len(self.thresholds) != classes or classes <= OBJECT:
            raise ConfigError(
                f"the U-Net has {classes} classes and the settings {len(self.thresholds)} thresholds; give one per "
                f"class, background and object at least."
            )
        if self.settings.segment_size % segment.divisor:
            raise ConfigError(
                f"the U-Net's input of {self.settings.segment_size} voxels is not a multiple of {segment.divisor}, as "
                f"its {segment.levels} levels need."
            )

    @classmethod
    def from_folder(
        cls,
        model_folder: ModelFolder | Path,
        device: torch.device | str = "cpu",
        *,
        behaviour: Behaviour | None = None,
    ) -> PublishedEstimator:
        """Build the estimator of an imported model folder.

        Parameters
        ----------
        model_folder
            The folder, or its path.
        device
            Where the networks run.
        behaviour
            Instead of the folder's own. ``"published"`` also pools odd scalars in the published way.

        Raises
        ------
        ModelFolderError
            If the folder holds other networks, or does not read.
        """
        folder = read_model_folder(model_folder) if isinstance(model_folder, Path) else model_folder
        chosen = behaviour or folder.config["behaviour"]
        if chosen not in ("published", "mended"):
            raise ModelFolderError(
                f"{folder.path} has the behaviour {chosen!r}; expected 'published' or 'mended', as an import writes it."
            )
        overrides = {"rotate": {"odd_scalars": "signed"}} if chosen == "published" else None
        networks = folder.networks(overrides=overrides)
        segment, rotate = networks.get("segment"), networks.get("rotate")
        if not isinstance(segment, UNet) or not isinstance(rotate, PoseNet):
            raise ModelFolderError(
                f"{folder.path} holds the networks {', '.join(networks) or 'none'}; expected a unet named 'segment' "
                f"and a pose_net named 'rotate'."
            )
        settings = _settings(folder)
        return cls(segment, rotate, behaviour=cast(Behaviour, chosen), settings=settings, device=device)

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        """Estimate the pose in the world of ``volume``'s affine (see :class:`equivox.tasks.pose.estimate.Estimator`).

        Raises
        ------
        InputError
            If the volume has several channels, is not finite or is constant, or the mask lies on another grid or is
            empty.
        """
        begin = time.perf_counter()
        _require_usable(volume)
        _require_mask(volume, mask)
        left_handed = float(torch.linalg.det(volume.affine[:3, :3])) < 0
        upright, upright_mask = volume, mask
        if left_handed or self.behaviour == "mended":
            upright = volume.reorient("RAS")
            upright_mask = mask.reorient("RAS") if mask is not None else None
        found = self._find(upright, upright_mask)
        result = self._assess(volume, upright, found)
        return result.with_seconds(time.perf_counter() - begin)

    def published_matrix(
        self,
        volume: Volume,
        *,
        scanner_space: bool = False,
        input_to_canonical: bool = False,
        mask: Volume | None = None,
        estimate: PoseEstimate | None = None,
    ) -> Float[Tensor, "4 4"] | None:
        """The 4x4 that the original saves under these flags; None where no object was found.

        Parameters
        ----------
        volume
            The input.
        scanner_space, input_to_canonical
            The original's flags: see :func:`equivox.tasks.pose.published_frames.published_matrix`.
        mask
            As for :meth:`estimate`.
        estimate
            What :meth:`estimate` gave for this volume, if it was asked already. A left-handed file in its voxel frame
            needs another run all the same: the networks then see the mirrored array, as in the original.
        """
        left_handed = float(torch.linalg.det(volume.affine[:3, :3])) < 0
        if left_handed and not scanner_space and self.behaviour == "published":
            _require_usable(volume)
            _require_mask(volume, mask)
            found = self._find(volume, mask)
            turned = self._turn(found) if isinstance(found, _Found) else found
            if isinstance(found, str) or isinstance(turned, str):
                return None
            center = volume.voxel_from_world(found.image.world_from_voxel(center_of_mask(found.mask)))
            return matrix_of(turned.read.rotation[0].double(), center, inverse=input_to_canonical)
        result = estimate or self.estimate(volume, mask=mask)
        if result.world_from_head is None:
            return None
        return published_matrix(
            result.world_from_head,
            volume.affine,
            scanner_space=scanner_space,
            input_to_canonical=input_to_canonical,
        )

    @torch.inference_mode()
    def _find(self, volume: Volume, mask: Volume | None) -> _Found | str:
        """The object's mask on the U-Net's grid, or the sentence that says why there is none."""
        size, spacing = self.settings.segment_size, self.settings.voxel_size_mm
        if self.behaviour == "published":
            image = segmentation_input(volume, voxel_size_mm=spacing, size=size)
            imaged = image.data[0] != 0
        else:
            image = covering_input(volume, voxel_size_mm=spacing, size=size, divisor=self.segment.divisor)
            imaged = volume.valid_on(image.affine, image.shape)
        if mask is not None:
            given = mask.resample(image.affine, image.shape, interpolation="nearest").data[0] != 0
            if not bool(given.any()):
                return f"the mask covers no voxel of the {spacing:g} mm working grid"
            return _Found(image, imaged, given, component_count(given), 1.0)
        seen = image.data[None].to(self.device).contiguous(memory_format=_layout(self.device))
        probabilities = torch.softmax(self.segment(seen)[0], dim=0).cpu()
        if self.behaviour == "published":
            candidates = classify(probabilities, self.thresholds) == OBJECT
        else:
            candidates = (probabilities[OBJECT] >= self.thresholds[OBJECT]) & imaged
        if not bool(candidates.any()):
            highest = float(probabilities[OBJECT].max())
            asked = self.thresholds[OBJECT]
            return f"no object found: its probability is {highest:.2f} at most and {asked:g} is asked for"
        found = largest_component(candidates)
        return _Found(image, imaged, found, component_count(candidates), float(probabilities[OBJECT][found].mean()))

    @torch.inference_mode()
    def _turn(self, found: _Found) -> _Turned | str:
        """The object's rotation, or the sentence that says why it cannot be told."""
        if object_extent(found.mask) < 1:
            return f"the object found has {int(found.mask.sum())} voxels only: too small to crop around"
        size = self.settings.rotate_size
        if self.behaviour == "published":
            image, _ = rotation_input(found.image.data[0], found.mask, size=size)
        else:
            image = centered_cube(found.image.data[0], found.mask, found.imaged, size=size)
        if min(image.shape) < 2**self.rotate.poolings:
            return (
                f"the crop around the object is {'x'.join(map(str, image.shape))} voxels: cut off by the image's edge"
            )
        field = self.rotate(image[None, None].to(self.device)).cpu()
        symmetry = self.rotate.object_symmetry
        return _Turned(read_field(field, symmetry), float(spread_deg(field, symmetry)))

    def _assess(self, volume: Volume, upright: Volume, found: _Found | str) -> PoseEstimate:
        """Put the pose into the world and say how far it can be trusted."""
        if isinstance(found, str):
            return PoseEstimate("no_object", reason=_sentence(found))
        voxel_ml = self.settings.voxel_size_mm**3 / 1000
        on_input = Volume(found.mask[None].float(), found.image.affine, volume.name).resample(
            volume.affine, volume.shape, interpolation="nearest"
        )
        turned = self._turn(found)
        if isinstance(turned, str):
            return PoseEstimate(
                "no_object", reason=_sentence(turned), mask=on_input, mask_volume_ml=int(found.mask.sum()) * voxel_ml
            )
        center = found.image.world_from_voxel(center_of_mask(found.mask))
        rotation = nearest_rotation(upright.direction @ turned.read.rotation[0].double())
        margin = voxels_to_border(found.mask, found.imaged)
        warnings = _warnings(found, margin)
        status: Status = "ok"
        reason = ""
        if bool(turned.read.low_confidence[0]):
            status, reason = "low_confidence", "The network's three axes do not span a well-conditioned rotation."
        x, y, z = turned.read.singular_values[0].tolist()
        return PoseEstimate(
            status,
            reason=reason,
            world_from_head=Pose(rotation, center, source="head", target="world"),
            confidence=float(turned.read.confidence[0]),
            mask=on_input,
            mask_volume_ml=int(found.mask.sum()) * voxel_ml,
            singular_values=(x, y, z),
            spread_deg=turned.spread_deg,
            warnings=warnings,
            details={
                "components": float(found.components),
                "border_distance_mm": margin * self.settings.voxel_size_mm,
                "object_probability": found.probability,
            },
        )


def _layout(device: torch.device) -> torch.memory_format:
    """How the U-Net's voxels lie in memory: channels together on a CPU, where that takes a quarter off its time."""
    return torch.channels_last_3d if device.type == "cpu" else torch.contiguous_format


def _warnings(found: _Found, margin: int) -> tuple[str, ...]:
    """What a reader of the result should know about the mask."""
    notes = []
    if margin == 0:
        notes.append("The object touches the edge of the image: it may be cut off and its centre displaced.")
    if found.components > 1:
        notes.append(f"The object was found in {found.components} pieces; the largest was used.")
    return tuple(notes)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _require_usable(volume: Volume) -> None:
    """One channel, finite, not constant."""
    if volume.data.shape[0] != 1:
        raise InputError(f"{volume.name} has {volume.data.shape[0]} channels; give a volume with one.")
    if not bool(torch.isfinite(volume.data).all()):
        raise InputError(f"{volume.name} holds NaN or infinite values; replace them before estimating a pose.")
    if bool(volume.data.amin() == volume.data.amax()):
        raise InputError(f"{volume.name} has the same value {float(volume.data.amin()):g} everywhere; nothing to see.")


def _require_mask(volume: Volume, mask: Volume | None) -> None:
    """On the volume's grid, with something in it."""
    if mask is None:
        return
    if mask.shape != volume.shape or not torch.allclose(mask.affine.double(), volume.affine.double(), atol=1e-3):
        raise InputError(
            f"the mask {mask.name} lies on another grid ({'x'.join(map(str, mask.shape))} voxels) than {volume.name} "
            f"({'x'.join(map(str, volume.shape))}); resample it to the volume's grid."
        )
    if not bool((mask.data != 0).any()):
        raise InputError(f"the mask {mask.name} is empty; leave it out to have the object found.")


def _settings(folder: ModelFolder) -> PublishedSettings:
    """Settings of an imported folder; unknown ones are errors."""
    contract: Mapping[str, object] = folder.config.get("input", {})
    own: Mapping[str, object] = folder.config.get("settings", {})
    unknown = sorted(set(own) - {"rotate_size", "thresholds"})
    if unknown:
        raise ModelFolderError(f"{folder.path} has the unknown setting {unknown[0]!r}; import the model again.")
    values: dict[str, object] = {}
    for field, source, key in (
        ("voxel_size_mm", contract, "voxel_size_mm"),
        ("segment_size", contract, "size"),
        ("rotate_size", own, "rotate_size"),
        ("thresholds", own, "thresholds"),
    ):
        if key in source:
            values[field] = source[key]
    try:
        settings = PublishedSettings(
            voxel_size_mm=float(str(values.get("voxel_size_mm", 3.0))),
            segment_size=int(str(values.get("segment_size", 128))),
            rotate_size=int(str(values.get("rotate_size", 64))),
        )
        thresholds = values.get("thresholds", [])
        if not isinstance(thresholds, list):
            raise ValueError("thresholds")
        return replace(settings, thresholds=tuple(float(value) for value in thresholds))
    except (TypeError, ValueError) as error:
        raise ModelFolderError(f"{folder.path} has settings of the wrong type ({error}); import it again.") from error
