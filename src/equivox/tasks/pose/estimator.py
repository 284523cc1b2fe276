"""Our own pose estimator: find the head, read its rotation from many views, then lay a head template over it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equivox.errors import ConfigError, ModelFolderError, did_you_mean
from equivox.geometry.rotations import Pose
from equivox.geometry.space import Volume
from equivox.nets.head_template import HeadTemplate
from equivox.tasks.pose.estimate import PoseEstimate
from equivox.tasks.pose.evidence import CalibratedReadOut, gather_evidence
from equivox.tasks.pose.locate import Candidate, Location, locate_head, locate_in_mask
from equivox.tasks.pose.register import RegisterConfig, Registration, register_head
from equivox.tasks.pose.rotate import Answer, CropConfig, answer_confidence, find_rotation, head_cube
from equivox.tasks.pose.template import posed_brain
from equivox.weights.folder import ModelFolder, read_model_folder

PLAUSIBLE_VOLUME_ML = (60.0, 700.0)
"""Brain volumes outside are clipped before they set the size of the crop, and reported."""
MASK_LEAD = 0.05
"""From this lead on the template's pose draws the mask."""


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How the networks of a model folder are used; stored in its ``settings``."""

    crop: CropConfig = field(default_factory=CropConfig)
    views: int = 12
    """Random views that the rotation is averaged over."""
    register: RegisterConfig = field(default_factory=RegisterConfig)
    """How the template is laid over the head, in a model that has one."""
    volume_correction: float = 1.0
    """Crops are sized for the found mask's volume times this: the finder's masks are larger than the reference masks
    that the rotation networks were trained with. A mask that the user gives is taken as it is."""
    confidence_weights: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Intercept, per degree of spread, per unit of the smallest singular value; fitted to held-out stacks."""
    least_confidence: float = 0.5
    """Below this a pose is called ``low_confidence``."""
    least_valid_share: float = 0.6
    """Below this share of the head's ball inside the field of view a pose is called ``low_confidence``."""
    object_readout: CalibratedReadOut | None = None
    """Probability that what was found is a head; below its least the answer is ``no_object``. None: every find counts.
    A mask that the user gives is never doubted."""
    pose_readout: CalibratedReadOut | None = None
    """Probability that the rotation is right within 20 degrees, instead of ``confidence_weights``; its least instead of
    ``least_confidence``."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in a volume, before anything is decided about it."""

    candidate: Candidate
    answer: Answer
    """Of the rotation networks."""
    registration: Registration | None
    """Of the template, which then decides; None in a model without one."""
    evidence: Mapping[str, float]
    in_field_of_view: float
    warnings: tuple[str, ...]
    mask_is_given: bool = False

    @property
    def world_from_head(self) -> Pose:
        """The template's pose where there is one, else the networks' rotation at the mask's centre."""
        center_mm = self.candidate.center_mm.double().cpu()
        if self.registration is None:
            return Pose(self.answer.rotation, center_mm, source="head", target="world")
        center_mm = center_mm + self.registration.shift_mm
        return Pose(self.registration.rotation, center_mm, source="head", target="world")


class HeadEstimator:
    """Pose of a fetal head in a volume of any orientation, handedness and voxel size.

    Parameters
    ----------
    networks
        ``"locate"`` (and ``"segment"`` if there is one) find the head; ``"rotate"``, … give its rotation, and their
        answers are averaged; a ``"template"`` (:class:`equivox.nets.head_template.HeadTemplate`), if there is one, is
        laid over the head from that answer and from everywhere else, and decides.
    settings
        Crop, views and confidence.
    device
        Where the networks run.

    Raises
    ------
    ModelFolderError
        If no network for the rotation, or none for the localisation, is there.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], settings: HeadSettings, device: torch.device | str = "cpu"
    ) -> None:
        self.settings = settings
        self.device = torch.device(device)
        moved = {name: network.to(self.device).eval() for name, network in networks.items()}
        self.finders = {name: network for name, network in moved.items() if name in ("locate", "segment")}
        self.template = next((one for one in moved.values() if isinstance(one, HeadTemplate)), None)
        rest = [name for name, one in sorted(moved.items()) if name not in self.finders and one is not self.template]
        self.rotators = [moved[name] for name in rest]
        if "locate" not in self.finders or not self.rotators:
            raise ModelFolderError(
                f"a head model needs a network 'locate' and one or more for the rotation; got {sorted(networks)}."
            )

    @classmethod
    def from_folder(cls, model_folder: ModelFolder | Path, device: torch.device | str = "cpu") -> HeadEstimator:
        """Build the estimator of a model folder whose behaviour is ``"equivox"``.

        Raises
        ------
        ModelFolderError
            If the folder is broken or its settings are not known to this version.
        """
        folder = model_folder if isinstance(model_folder, ModelFolder) else read_model_folder(model_folder)
        return cls(folder.networks(), read_settings(folder.config.get("settings", {}), where=folder.path), device)

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        """Find the head and its pose; see :class:`equivox.tasks.pose.estimate.Estimator`.

        A given ``mask`` (the brain) replaces the localisation.
        """
        begin = time.perf_counter()
        found = self.examine(volume, mask=mask)
        if isinstance(found, str):
            return PoseEstimate(status="no_object", reason=found, seconds=time.perf_counter() - begin)
        judge = self.settings.object_readout
        if judge is not None and mask is None and (sure := judge.probability(found.evidence)) < judge.least:
            return PoseEstimate(
                status="no_object",
                reason=f"What looks most like a head is none (probability {sure:.2f}, {judge.least:.2f} is asked for).",
                seconds=time.perf_counter() - begin,
                details={"object_probability": sure, "localisation_score": found.candidate.score},
            )
        return self._report(volume, found, begin)

    def examine(self, volume: Volume, *, mask: Volume | None = None) -> Examined | str:
        """Everything that is found in a volume, or the sentence that says why nothing is; nothing is decided yet."""
        location = self._locate(volume) if mask is None else locate_in_mask(mask, like=volume)
        if not location.candidates:
            return location.reason or "Nothing in the volume looks like a fetal brain."
        candidate = location.candidates[0]
        warnings = []
        low, high = PLAUSIBLE_VOLUME_ML
        expected_ml = candidate.mask_volume_ml * (self.settings.volume_correction if mask is None else 1.0)
        size_ml = min(max(expected_ml, low), high)
        if size_ml != expected_ml:
            warnings.append(
                f"The mask holds {expected_ml:.0f} mL, not a fetal brain's volume; the crop was sized for "
                f"{size_ml:.0f} mL."
            )
        cube, valid = head_cube(volume, candidate.center_mm)
        answer = find_rotation(self.rotators, cube, valid, size_ml, self.settings.crop, views=self.settings.views)
        registration = None
        if self.template is not None:
            guess, how = answer.rotation[None], self.settings.register
            registration = register_head(self.template, cube, valid, size_ml, guess, how)
        seen = _share_seen(cube, valid)
        evidence = gather_evidence(candidate, cube, valid, answer, registration, in_field_of_view=seen)
        return Examined(candidate, answer, registration, evidence, seen, tuple(warnings), mask is not None)

    def _locate(self, volume: Volume) -> Location:
        """Find the head; the finder works where its networks are."""
        return locate_head(self.finders, volume.to(self.device))

    def _report(self, volume: Volume, found: Examined, begin: float) -> PoseEstimate:
        """Put the result together and say why it is doubtful, if it is."""
        candidate, answer, seen = found.candidate, found.answer, found.in_field_of_view
        judge = self.settings.pose_readout
        if judge is None:
            confidence = answer_confidence(answer, self.settings.confidence_weights)
        else:
            confidence = judge.probability(found.evidence)
        reasons = []
        if confidence < (self.settings.least_confidence if judge is None else judge.least):
            reasons.append(_doubt(found, confidence))
        if seen < self.settings.least_valid_share:
            reasons.append(f"only {100 * seen:.0f} % of the head lies inside the field of view")
        details = {"localisation_score": candidate.score, "share_in_field_of_view": seen}
        if found.registration is not None:
            details["template_correlation"] = found.registration.correlation
            details["template_lead"] = found.registration.lead
        if self.settings.object_readout is not None:
            details["object_probability"] = self.settings.object_readout.probability(found.evidence)
        mask, mask_volume_ml = self._mask(found, volume)
        if mask.shape != volume.shape or not torch.equal(mask.affine, volume.affine):
            mask = mask.resample(volume.affine, volume.shape)
        return PoseEstimate(
            status="low_confidence" if reasons else "ok",
            reason="; ".join(reasons)[:1].upper() + "; ".join(reasons)[1:] + "." if reasons else "",
            world_from_head=found.world_from_head,
            confidence=confidence,
            mask=Volume((mask.data > 0.5).float(), volume.affine, volume.name),
            mask_volume_ml=mask_volume_ml,
            singular_values=answer.singular_values,
            spread_deg=answer.spread_deg,
            warnings=found.warnings,
            seconds=time.perf_counter() - begin,
            details=details,
        )

    def _mask(self, found: Examined, volume: Volume) -> tuple[Volume, float]:
        """The template's brain in its pose where it fits one way only, else what the finder saw or the user gave."""
        candidate, registration = found.candidate, found.registration
        mask = candidate.mask.to("cpu")
        template = self.template
        if found.mask_is_given or template is None or registration is None or registration.lead < MASK_LEAD:
            return mask, candidate.mask_volume_ml
        if not template.brain.any():
            return mask, candidate.mask_volume_ml
        return posed_brain(template, found.world_from_head, registration.size, mask, volume)


def read_settings(settings: Mapping[str, Any], *, where: Path) -> HeadSettings:
    """Settings of a model folder, with every key checked.

    Raises
    ------
    ModelFolderError
        If a key is unknown.
    """
    nested: dict[str, Any] = {"crop": CropConfig, "register": RegisterConfig}
    parts: dict[str, Any] = {}
    for name, kind in {"": HeadSettings, **nested}.items():
        given = settings if not name else settings.get(name, {})
        names = [part.name for part in fields(kind)]
        for key in given:
            if key not in names:
                raise ModelFolderError(f"{where}: settings hold the unknown key {key!r}{did_you_mean(key, names)}.")
        parts[name] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    rest = parts.pop("")
    try:
        for key in ("object_readout", "pose_readout"):
            if rest.get(key) is not None:
                rest[key] = CalibratedReadOut.from_settings(rest[key])
    except ConfigError as error:
        raise ModelFolderError(f"{where}: settings hold a broken {key}: {error}") from error
    return HeadSettings(**{**rest, **{name: nested[name](**values) for name, values in parts.items()}})


def _doubt(found: Examined, confidence: float) -> str:
    """Why a rotation is not vouched for."""
    if found.registration is None:
        return (
            f"mask and views do not vouch for the rotation (confidence {confidence:.2f}, the views differ by "
            f"{found.answer.spread_deg:.0f} degrees)"
        )
    return (
        f"the head template does not vouch for the rotation (confidence {confidence:.2f}; correlation "
        f"{found.registration.correlation:.2f}, {found.registration.lead:.2f} above the best other rotation)"
    )


def _share_seen(cube: torch.Tensor, valid: torch.Tensor) -> float:
    """Share of a 50 mm ball about the centre that the field of view holds."""
    axis = (torch.arange(cube.shape[-1]) - (cube.shape[-1] - 1) / 2) * 3.0
    ball = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2 < 50.0**2
    return float(valid[0, ball].mean())
