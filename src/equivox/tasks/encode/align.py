"""`equivox encode align`: how two scans of one brain lie to each other, from their codes alone.

``fixed_from_moving`` maps points of the moving scan to points of the fixed one, both in world RAS mm. The rotation is
the one that takes the moving scan's vectors to the fixed one's (Kabsch); the moving scan is then encoded once more,
turned by it, and what is left is added. The translation brings the brains' centroids together and is refined by the
peak of their correlation, so masks that differ a little do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import equivox
from equivox.formats.atomic import atomic_path, require_absent, require_folder, write_json
from equivox.formats.nifti import open_scan
from equivox.formats.transforms.fsl import write_fsl
from equivox.formats.transforms.grid import Grid
from equivox.formats.transforms.itk import write_itk
from equivox.formats.transforms.lta import write_lta
from equivox.geometry.rotations import nearest_rotation, quaternion_from_rotation, rotation_angle
from equivox.nets.brain_code import align_codes
from equivox.run.device import choose_device
from equivox.run.record import RunRecord
from equivox.tasks.encode.config import DEFAULT_MODEL
from equivox.tasks.encode.data import BrainSource, open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model

JSON_NAME, RUN_JSON, PICTURE = "alignment.json", "run.json", "alignment.png"
ITK_NAME, LTA_NAME, FSL_NAME = "moving_from_fixed.tfm", "fixed_from_moving.lta", "fixed_from_moving_fsl.mat"
SCHEMA = "equivox.encode.alignment/1"
PASSES = 2
LOW_CONFIDENCE = 0.15
LOW_AGREEMENT = 0.8
LOW_CORRELATION = 0.6
FARTHEST_MM = 25.0
"""A correlation peak farther than this from the centroids' offset is not believed."""


@dataclass(frozen=True, slots=True)
class AlignConfig:
    """What `encode align` may be told."""

    model: str = DEFAULT_MODEL
    fixed_mask: str | None = None
    moving_mask: str | None = None
    brain_extracted: bool = False


@dataclass(frozen=True, slots=True)
class Alignment:
    """The relative pose of two scans.

    Parameters
    ----------
    fixed_from_moving
        4x4 float64, RAS mm to RAS mm, rigid.
    confidence
        ``(s2 + s3) / s1`` of the codes' correlation, at most 1 here: near 0 an angle is undetermined.
    agreement
        Cosine between both codes' vectors after the rotation.
    correlation
        Of the intensities inside both brains after alignment.
    warnings
        Sentences about the scans and about doubt.
    """

    fixed_from_moving: Float[Tensor, "4 4"]
    confidence: float
    agreement: float
    correlation: float
    warnings: tuple[str, ...] = field(default=())

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation."""
        return float(torch.rad2deg(rotation_angle(self.fixed_from_moving[:3, :3])))

    @property
    def status(self) -> str:
        """``ok``, or ``low_confidence`` where a picture should be looked at first."""
        return "low_confidence" if self.doubts else "ok"

    @property
    def doubts(self) -> list[str]:
        """Why not to believe it."""
        found = []
        if self.confidence < LOW_CONFIDENCE:
            found.append(f"the vectors hardly fix the rotation (confidence {self.confidence:.2f})")
        if self.agreement < LOW_AGREEMENT:
            found.append(f"the two codes differ (agreement {self.agreement:.2f})")
        if self.correlation < LOW_CORRELATION:
            found.append(f"the intensities agree badly after alignment (correlation {self.correlation:.2f})")
        return found


def align_sources(model: EncodeModel, fixed: BrainSource, moving: BrainSource, *, passes: int = PASSES) -> Alignment:
    """Relative pose of two brains that were read; see the module."""
    still = fixed.sample(side=model.side)
    target = model.code([still])
    rotation = torch.eye(3, dtype=torch.float64)
    found = None
    for number in range(max(passes, 1)):
        turned = moving.sample(side=model.side, turn=rotation)
        step = align_codes(model.code([turned]), target)
        found = found or step
        rotation = nearest_rotation(step.rotation[0].double() @ rotation)
        if number and float(step.agreement[0]) >= float(found.agreement[0]):
            found = step
    assert found is not None
    turned = moving.sample(side=model.side, turn=rotation)
    shift, correlation = best_shift(still.volume[0], turned.volume[0], model.voxel_size_mm)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = fixed.centroid_mm + shift - rotation @ moving.centroid_mm
    warnings = tuple(dict.fromkeys([*still.warnings, *turned.warnings]))
    confidence = min(float(found.confidence[0]), 1.0)
    return Alignment(matrix, confidence, float(found.agreement[0]), correlation, warnings)


def best_shift(
    fixed: Float[Tensor, "x y z"], moving: Float[Tensor, "x y z"], voxel_size_mm: float
) -> tuple[Float[Tensor, "3"], float]:
    """Shift [mm] that brings ``moving`` onto ``fixed``, from the peak of their correlation, and Pearson's there.

    Parabolas through the peak's neighbours give fractions of a voxel. A peak more than 25 mm away is not believed.
    """
    side = fixed.shape[0]
    first, second = fixed.double(), moving.double()
    padded = [2 * size for size in fixed.shape]
    spectrum = torch.fft.rfftn(first, s=padded) * torch.fft.rfftn(second, s=padded).conj()
    raw = torch.fft.irfftn(spectrum, s=padded)
    reach = min(int(FARTHEST_MM / voxel_size_mm), side - 1)
    window = torch.roll(raw, (reach + 1,) * 3, dims=(0, 1, 2))[: 2 * reach + 3, : 2 * reach + 3, : 2 * reach + 3]
    inner = window[1:-1, 1:-1, 1:-1]
    flat = int(inner.argmax())
    peak = [flat // inner.shape[1] // inner.shape[2], flat // inner.shape[2] % inner.shape[1], flat % inner.shape[2]]
    shift = []
    for axis in range(3):
        index = [place + 1 for place in peak]
        here = float(window[tuple(index)])
        index[axis] -= 1
        before = float(window[tuple(index)])
        index[axis] += 2
        after = float(window[tuple(index)])
        bend = before - 2 * here + after
        fraction = 0.5 * (before - after) / bend if bend < 0 else 0.0
        shift.append((peak[axis] - reach + fraction) * voxel_size_mm)
    whole = [round(one / voxel_size_mm) for one in shift]
    moved = torch.roll(second, whole, dims=(0, 1, 2))
    both = (first > 0) & (moved > 0)
    pair = torch.stack([first[both], moved[both]]) if int(both.sum()) > 10 else torch.ones(2, 2).double()
    correlation = float(torch.corrcoef(pair)[0, 1]) if float(pair.std(dim=1).min()) > 0 else 0.0
    return torch.tensor(shift, dtype=torch.float64), correlation


def align_scans(
    fixed: Path,
    moving: Path,
    out: Path,
    config: AlignConfig,
    *,
    device: str = "auto",
    overwrite: bool = False,
    command: Sequence[str] = ("equivox", "encode", "align"),
) -> Alignment:
    """Align two scans and write ``alignment.json``, ITK, LTA and FSL files, a picture and ``run.json``.

    Raises
    ------
    InputError
        If a scan cannot be used or the skull is there.
    OutputError
        If results are there already, or the folder cannot be written.
    ModelFolderError
        If the model is missing, broken, or of another task.
    """
    from equivox.report.overlay import overlay_picture

    choice = choose_device(device)
    model = load_encode_model(config.model, str(choice.device))
    names = (JSON_NAME, ITK_NAME, LTA_NAME, FSL_NAME, PICTURE, RUN_JSON)
    require_folder(out)
    require_absent([out / name for name in names], overwrite=overwrite)
    record = RunRecord(
        command,
        {"model": config.model, "fixed_mask": config.fixed_mask, "moving_mask": config.moving_mask,
         "brain_extracted": config.brain_extracted},
        device=choice.as_dict(),
    )  # fmt: skip
    record.add("model", model.folder.as_dict())
    record.add_input(fixed, role="fixed")
    record.add_input(moving, role="moving")
    options = {"brain_extracted": config.brain_extracted, "voxel_size_mm": model.voxel_size_mm}
    with record.timed("align"):
        first = open_brain(fixed, mask=config.fixed_mask, **options)  # type: ignore[arg-type]
        second = open_brain(moving, mask=config.moving_mask, **options)  # type: ignore[arg-type]
        found = align_sources(model, first, second)
    fixed_volume, moving_volume = open_scan(fixed).frame(0), open_scan(moving).frame(0)
    grids = {"moving": Grid.of(moving_volume), "fixed": Grid.of(fixed_volume)}
    moving_from_fixed = torch.linalg.inv(found.fixed_from_moving)
    write_itk(out / ITK_NAME, moving_from_fixed)
    write_lta(out / LTA_NAME, moving_from_fixed, **grids)
    write_fsl(out / FSL_NAME, moving_from_fixed, **grids)
    picture = overlay_picture(
        fixed_volume, moving_volume, found.fixed_from_moving, first.centroid_mm, second.centroid_mm
    )
    with atomic_path(out / PICTURE) as temporary:
        temporary.write_bytes(picture)
    write_json(out / JSON_NAME, alignment_record(found, fixed, moving, model))
    for text in [*found.warnings, *found.doubts]:
        record.add_warning(text)
    record.write(out / RUN_JSON, "done")
    return found


def alignment_record(found: Alignment, fixed: Path, moving: Path, model: EncodeModel) -> dict[str, object]:
    """Content of ``alignment.json``."""
    rotation = found.fixed_from_moving[:3, :3]
    return {
        "schema": SCHEMA,
        "version": equivox.__version__,
        "fixed": str(fixed),
        "moving": str(moving),
        "model": {"name": model.name, "sha256": model.folder.sha256},
        "meaning": "p_fixed = fixed_from_moving @ p_moving, homogeneous points in world RAS+ mm",
        "fixed_from_moving": [[round(value, 9) for value in row] for row in found.fixed_from_moving.tolist()],
        "angle_deg": round(found.angle_deg, 4),
        "quaternion_xyzw": [round(value, 9) for value in quaternion_from_rotation(rotation).tolist()],
        "translation_mm": [round(value, 6) for value in found.fixed_from_moving[:3, 3].tolist()],
        "status": found.status,
        "confidence": round(found.confidence, 4),
        "agreement": round(found.agreement, 4),
        "correlation": round(found.correlation, 4),
        "doubts": found.doubts,
        "warnings": list(found.warnings),
        "files": {
            ITK_NAME: "ITK (LPS), maps fixed points to moving points: antsApplyTransforms -r FIXED -i MOVING -t FILE",
            LTA_NAME: "FreeSurfer, RAS to RAS from moving to fixed: mri_vol2vol --lta FILE",
            FSL_NAME: "FSL, scaled voxels from moving to fixed: flirt -in MOVING -ref FIXED -applyxfm -init FILE",
            PICTURE: "before and after",
        },
    }
