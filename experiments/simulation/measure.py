"""The statistics by which simulated stacks are held against real ones: one function for both."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
from scipy import ndimage

from equivox.formats.fetal_templates import read_templates
from equivox.formats.nifti import open_scan, read_volume
from equivox.run.seeds import seed_for
from equivox.simulate.stack import simulate_stacks
from equivox.simulate.stack_config import StackSimulation
from equivox.simulate.templates import HeadTemplates, prepare_templates

LAPLACE = numpy.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
JUDGED = ("texture", "bias", "skull_shell", "fluid_p95", "eye_left", "eye_right")
"""Statistics whose distance must not exceed 0.35."""


@dataclass(frozen=True)
class Case:
    """One stack with its brain and the world positions of its eyes."""

    name: str
    group: str
    image: numpy.ndarray
    brain: numpy.ndarray
    affine: numpy.ndarray
    eyes_mm: numpy.ndarray
    rotation: numpy.ndarray
    center_mm: numpy.ndarray
    volume_ml: float

    @property
    def spacing(self) -> numpy.ndarray:
        """Voxel size in mm."""
        return numpy.linalg.norm(self.affine[:3, :3], axis=0)


def real_cases(data: Path, *, first: int = 0, step: int = 1) -> Iterator[Case]:
    """The measured stacks of grades A and B; every ``step``-th of them from ``first`` on."""
    rows = [row for row in csv.DictReader((data / "epi" / "poses.csv").open()) if row["mask_grade"] != "C"]
    for row in rows[first::step]:
        volume = read_volume(data / "epi" / row["file"])
        mask = open_scan(data / "epi" / "mask_pseudo" / f"{row['id']}_mask.nii.gz").labels().numpy() > 0
        eyes = [[float(row[f"eye{side}_{axis}mm"]) for axis in "xyz"] for side in "LR"]
        yield Case(
            row["id"], row["fetus"], volume.data[0].numpy(), mask, volume.affine.numpy(), numpy.array(eyes),
            rotation_of(row), numpy.array([float(row[key]) for key in ("tx", "ty", "tz")]),
            float(row["mask_volume_ml"]),
        )  # fmt: skip


def rotation_of(row: dict[str, str]) -> numpy.ndarray:
    """World from head."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat([float(row[key]) for key in ("qx", "qy", "qz", "qw")]).as_matrix()


def load_templates(folder: Path | None = None) -> HeadTemplates:
    """The templates of a folder, or of the package."""
    files = read_templates(folder)
    return prepare_templates(files.atlases, files.epi)


def simulated_cases(
    count: int, config: StackSimulation, *, seed: int = 0, first: int = 0, templates: HeadTemplates | None = None
) -> Iterator[Case]:
    """Fresh simulated stacks, one by one, from number ``first`` up to ``count``."""
    heads = templates or load_templates()
    for number in range(first, count):
        (stack,) = simulate_stacks([seed_for(seed, "statistics", number)], templates=heads, config=config)
        subject = stack.drawn.subject
        eyes = numpy.array([subject.eye_left_mm, subject.eye_right_mm]) * subject.scale
        rotation, center = stack.world_from_head.numpy(), stack.center_mm.numpy()
        yield Case(
            f"sim-{number:05d}", f"sim-{number:05d}", stack.image.data[0].numpy(), stack.labels.numpy() == 1,
            stack.image.affine.numpy(), eyes @ rotation.T + center, rotation, center, subject.brain_volume_ml,
        )  # fmt: skip


def statistics(case: Case) -> dict[str, float]:
    """Numbers of one stack, relative to the brain's median."""
    whole, spacing = case.image, case.spacing
    level = float(numpy.median(whole[case.brain]))
    near = tuple(
        slice(max(int(index.min() - 33 / step), 0), int(index.max() + 33 / step) + 2)
        for index, step in zip(numpy.nonzero(case.brain), spacing, strict=True)
    )
    image, brain = whole[near].astype(numpy.float32), case.brain[near]
    relative = image / level
    core = ndimage.binary_erosion(brain, numpy.ones((3, 3, 1), bool), iterations=2)
    response = ndimage.convolve(relative, LAPLACE[:, :, None], mode="nearest")
    noise = numpy.sqrt(numpy.pi / 2) / 6 * numpy.abs(response[core]).mean()
    sigma = 12.0 / spacing
    local = ndimage.gaussian_filter(relative * brain, sigma) / numpy.maximum(
        ndimage.gaussian_filter(brain.astype(numpy.float32), sigma), 1e-3
    )
    local = numpy.maximum(local, 1e-3)
    medians = numpy.array(
        [numpy.median(relative[:, :, k][brain[:, :, k]]) for k in range(image.shape[2]) if brain[:, :, k].sum() > 150]
    )
    distance = ndimage.distance_transform_edt(~brain, sampling=spacing)
    shells = [relative[(distance > low) & (distance <= low + 2)] for low in (0.0, 2.0, 4.0, 6.0)]
    around = relative[(distance > 6) & (distance <= 30)]
    lowest = float(numpy.percentile(whole, 15)) / level  # the median of the lowest 30 %
    eyes = [_eye(whole / level, case.affine, place) for place in case.eyes_mm]
    return {
        "snr": 1.0 / noise,
        "texture": float((relative / local)[brain].std()),
        "bias": float(numpy.percentile(local[brain], 95) / numpy.percentile(local[brain], 5)),
        "slice_gain": float(numpy.diff(medians).std() / numpy.sqrt(2)) if len(medians) > 3 else numpy.nan,
        "eye_left": eyes[0],
        "eye_right": eyes[1],
        "skull_shell": min(float(numpy.median(shell)) for shell in shells if shell.size),
        "surroundings": float(numpy.median(around)),
        "fluid_p95": float(numpy.percentile(around, 95)),
        "brightest": float(numpy.percentile(whole, 99.9)) / level,
        "background": lowest,
        "zeros": float((whole == 0).mean()),
        "motion_index": motion_index(image, brain),
    }


def motion_index(image: numpy.ndarray, brain: numpy.ndarray) -> float:
    """Neighbouring slices' difference over that of slices two apart, median over the head's slices."""
    near = ndimage.binary_dilation(brain, iterations=3)
    smooth = ndimage.gaussian_filter(image, (1, 1, 0))
    found = []
    for k in range(image.shape[2] - 2):
        inside = near[:, :, k] & near[:, :, k + 1] & near[:, :, k + 2]
        if inside.sum() < 100:
            continue
        one = numpy.abs(smooth[:, :, k] - smooth[:, :, k + 1])[inside].mean()
        two = numpy.abs(smooth[:, :, k + 1] - smooth[:, :, k + 2])[inside].mean()
        far = numpy.abs(smooth[:, :, k] - smooth[:, :, k + 2])[inside].mean()
        found.append(0.5 * (one + two) / max(far, 1e-6))
    return float(numpy.median(found)) if found else numpy.nan


def _eye(relative: numpy.ndarray, affine: numpy.ndarray, place_mm: numpy.ndarray) -> float:
    """90th percentile in a ball of 5 mm."""
    index = numpy.linalg.inv(affine[:3, :3]) @ (place_mm - affine[:3, 3])
    reach = numpy.ceil(5.0 / numpy.linalg.norm(affine[:3, :3], axis=0)).astype(int) + 1
    low = numpy.maximum(numpy.round(index).astype(int) - reach, 0)
    high = numpy.minimum(numpy.round(index).astype(int) + reach + 1, relative.shape)
    if (high <= low).any():
        return numpy.nan
    axes = [numpy.arange(a, b) for a, b in zip(low, high, strict=True)]
    points = numpy.stack(numpy.meshgrid(*axes, indexing="ij"), -1) - index
    inside = numpy.linalg.norm(points @ affine[:3, :3].T, axis=-1) <= 5.0
    values = relative[low[0] : high[0], low[1] : high[1], low[2] : high[2]][inside]
    return float(numpy.percentile(values, 90)) if values.size else numpy.nan
