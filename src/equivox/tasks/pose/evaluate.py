"""`equivox pose evaluate`: predicted against true poses, by the protocol of data_mri.md section 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import equivox
from equivox.errors import EquivoxError, InputError
from equivox.formats.nifti import open_scan
from equivox.formats.poses import PoseRow, TruthRow, read_poses_csv, read_truth_csv
from equivox.geometry.space import Volume
from equivox.metrics.pose import PoseErrors, PoseSummary, calibrate_by_fold, pose_errors, summarize_errors
from equivox.metrics.pose_baselines import (
    BaselineNumbers,
    baseline_numbers,
    mean_rotation_by_fold,
    principal_axes_oracle,
    uniform_rotation_numbers,
)
from equivox.nets.object_symmetry import nearest_equivalent
from equivox.run.evaluation_files import write_evaluation_files
from equivox.tasks.pose.config import EvaluateConfig
from equivox.tasks.pose.consistency import Consistency
from equivox.tasks.pose.matching import match_rows

ERRORS_NAME = "evaluation_errors.csv"


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation.

    ``raw`` is as predicted; ``calibrated`` after one constant rotation, fitted on the other folds, was removed (None
    with the reason in ``notes`` where there is only one fold). ``primary`` marks the stacks whose landmarks are not in
    doubt; summaries without another name are over these.
    """

    config: EvaluateConfig
    pairs: tuple[tuple[PoseRow, TruthRow], ...]
    unmatched: tuple[str, ...]
    subjects: tuple[str, ...]
    groups: tuple[str, ...]
    primary: Bool[Tensor, "count"]
    raw: PoseErrors
    calibrated: PoseErrors | None
    offsets_deg: dict[str, float]
    summaries: dict[str, PoseSummary]
    strata: dict[str, PoseSummary]
    baselines: dict[str, BaselineNumbers]
    notes: tuple[str, ...] = ()
    consistency: dict[str, Consistency] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Everything as plain JSON values (schema ``equivox.evaluation/1``)."""
        return {
            "schema": "equivox.evaluation/1",
            "version": equivox.__version__,
            "config": self.config.as_dict(),
            "summaries": {name: summary.as_dict() for name, summary in self.summaries.items()},
            "strata": {name: summary.as_dict() for name, summary in self.strata.items()},
            "baselines": {name: numbers.as_dict() for name, numbers in self.baselines.items()},
            "offsets_deg": {name: round(value, 4) for name, value in self.offsets_deg.items()},
            "stacks": [dict(zip(ERROR_COLUMNS, row, strict=True)) for row in error_rows(self)],
            "consistency": {name: result.as_dict() for name, result in self.consistency.items()},
            "unmatched": list(self.unmatched),
            "notes": list(self.notes),
        }


ERROR_COLUMNS = (
    "input", "frame", "id", "subject", "primary", "status", "rotation_error_deg", "pitch_deg", "roll_deg", "yaw_deg",
    "center_error_mm", "flip_about", "rotation_error_calibrated_deg", "flags",
)  # fmt: skip


def error_rows(evaluation: Evaluation) -> list[tuple[object, ...]]:
    """One row per stack in the order of :data:`ERROR_COLUMNS`; numbers are None where there was no pose."""
    rows: list[tuple[object, ...]] = []
    raw, calibrated = evaluation.raw, evaluation.calibrated
    for index, (predicted, true) in enumerate(evaluation.pairs):
        angles = (raw.rotation_deg, raw.pitch_deg, raw.roll_deg, raw.yaw_deg, raw.center_mm)
        numbers = [_rounded(float(column[index])) for column in angles]
        after = None if calibrated is None else _rounded(float(calibrated.rotation_deg[index]))
        rows.append(
            (predicted.input, predicted.frame, true.id, evaluation.subjects[index], bool(evaluation.primary[index]),
             predicted.status, *numbers, raw.confused_axis[index], after, true.columns.get("flags", ""))
        )  # fmt: skip
    return rows


def evaluate_poses(
    config: EvaluateConfig, *, consistency: Callable[[Sequence[PoseRow]], dict[str, Consistency]] | None = None
) -> Evaluation:
    """Compare a table of predicted poses with a table of true ones.

    Parameters
    ----------
    config
        Files and choices.
    consistency
        Runs the label-free tests for the matched rows (None: not asked for).

    Raises
    ------
    InputError
        If a table cannot be used or nothing matches.
    """
    predicted = read_poses_csv(_poses_file(config.predicted))
    matched = match_rows(predicted, read_truth_csv(config.truth))
    pairs = matched.pairs
    truth = [true for _, true in pairs]
    subjects = tuple(_first_column(row, ("fetus", "subject", "participant_id")) or row.id for row in truth)
    groups = tuple(row.columns.get("leak_group", "") or s for row, s in zip(truth, subjects, strict=True))
    has_folds = all(row.columns.get("fold", "") for row in truth)
    folds = tuple(row.columns["fold"] for row in truth) if has_folds else groups
    primary = torch.tensor([not set(_flags(row)) & set(config.exclude_flags) for row in truth])
    true_rotation = torch.stack([row.world_from_head.rotation for row in truth if row.world_from_head]).double()
    true_center = torch.stack([row.world_from_head.translation_mm for row in truth if row.world_from_head]).double()
    rotation, center = _predicted_tensors([row for row, _ in pairs])
    rotation = nearest_equivalent(true_rotation, rotation, config.symmetry)
    raw = pose_errors(rotation, true_rotation, center, true_center)

    notes: list[str] = []
    if not has_folds:
        notes.append(
            "The truth table has no column fold: offset and mean rotation are fitted without the tested group."
        )
    calibrated: PoseErrors | None = None
    offsets: dict[str, float] = {}
    try:
        turned, offsets = calibrate_by_fold(rotation, true_rotation, folds, primary)
        calibrated = pose_errors(turned, true_rotation, center, true_center)
    except InputError as error:
        notes.append(f"Not calibrated: {error}")

    draw = torch.Generator().manual_seed(config.seed)

    def summary(errors: PoseErrors, keep: Bool[Tensor, "count"]) -> PoseSummary:
        kept = keep.nonzero()[:, 0].tolist()
        chosen = ([subjects[i] for i in kept], [groups[i] for i in kept])
        return summarize_errors(errors.select(keep), *chosen, generator=draw, resamples=config.resamples)

    everything = torch.ones(len(pairs), dtype=torch.bool)
    summaries = {"primary": summary(raw, primary)}
    if calibrated is not None:
        summaries["primary_calibrated"] = summary(calibrated, primary)
    summaries["all"] = summary(raw, everything)
    if calibrated is not None:
        summaries["all_calibrated"] = summary(calibrated, everything)
    strata = {name: summary(raw, primary & keep) for name, keep in _strata(config, pairs).items()}
    baselines, remarks = _baselines(config, pairs, true_rotation, folds, primary)
    return Evaluation(
        config=config, pairs=pairs, unmatched=matched.unmatched, subjects=subjects, groups=groups, primary=primary,
        raw=raw, calibrated=calibrated, offsets_deg=offsets, summaries=summaries, strata=strata, baselines=baselines,
        notes=(*notes, *remarks),
        consistency={} if consistency is None else consistency([row for row, _ in pairs]),
    )  # fmt: skip


def write_evaluation(evaluation: Evaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_errors.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    rows = [["" if cell is None else cell for cell in row] for row in error_rows(evaluation)]
    return write_evaluation_files(
        out, evaluation.as_dict(), page, table=ERRORS_NAME, header=ERROR_COLUMNS, rows=rows, overwrite=overwrite
    )


def _poses_file(predicted: Path) -> Path:
    return predicted / "poses.csv" if predicted.is_dir() else predicted


def _predicted_tensors(rows: Sequence[PoseRow]) -> tuple[Float[Tensor, "count 3 3"], Float[Tensor, "count 3"]]:
    """Rotations and centres; NaN where a row has no pose."""
    rotation = torch.full((len(rows), 3, 3), torch.nan, dtype=torch.float64)
    center = torch.full((len(rows), 3), torch.nan, dtype=torch.float64)
    for index, row in enumerate(rows):
        if row.world_from_head is not None:
            rotation[index] = row.world_from_head.rotation
            center[index] = row.world_from_head.translation_mm
    return rotation, center


def _first_column(row: TruthRow, names: Sequence[str]) -> str:
    return next((row.columns[name] for name in names if row.columns.get(name)), "")


def _flags(row: TruthRow) -> list[str]:
    """Flags are separated by semicolons, commas, blanks or bars."""
    text = row.columns.get("flags", "")
    for separator in ";,|":
        text = text.replace(separator, " ")
    return text.split()


def _strata(config: EvaluateConfig, pairs: Sequence[tuple[PoseRow, TruthRow]]) -> dict[str, Bool[Tensor, "count"]]:
    """Name -> which stacks; only where the truth table has the column, both sides are there, and for the status."""
    sides: dict[str, Bool[Tensor, "count"]] = {}
    for column, low, high, limit, inclusive in (
        ("motion_index", "motion index ≤ 1", "motion index > 1", config.motion_limit, True),
        ("dz", "slices of 3 mm", "slices of 4.5 mm", config.slice_limit_mm, True),
        ("ga_weeks", "younger than 30 weeks", "30 weeks and older", config.age_limit_weeks, False),
    ):
        if not all(true.columns.get(column, "") for _, true in pairs):
            continue
        values = torch.tensor([_number(true, column) for _, true in pairs], dtype=torch.float64)
        below = values <= limit if inclusive else values < limit
        sides[low], sides[high] = below, ~below
    ok = torch.tensor([row.status == "ok" for row, _ in pairs])
    sides["status ok"], sides["status other than ok"] = ok, ~ok
    return {name: keep for name, keep in sides.items() if bool(keep.any())}


def _number(row: TruthRow, column: str) -> float:
    try:
        return float(row.columns[column])
    except ValueError:
        raise InputError(
            f"column {column} of {row.id} in the truth table holds {row.columns[column]!r}; a number is needed."
        ) from None


PLAIN_CNN = (
    "Baseline 'plain CNN' is not computed here, since it would have to be trained on these stacks: on the 25 primary "
    "EPI stacks its median is 70 to 93 degrees over three seeds, each trained on all fetuses of the other folds "
    "(docs/experiments/pose.md)."
)
"""Recorded by ``experiments/pose/plain_control.py``."""


def _baselines(
    config: EvaluateConfig,
    pairs: Sequence[tuple[PoseRow, TruthRow]],
    true_rotation: Float[Tensor, "count 3 3"],
    folds: Sequence[str],
    primary: Bool[Tensor, "count"],
) -> tuple[dict[str, BaselineNumbers], list[str]]:
    """Random, mean rotation of the other folds, principal axes of the mask with oracle signs; over the primary set."""
    nothing = torch.zeros(len(pairs), 3, dtype=torch.float64)
    numbers = {"random rotation": uniform_rotation_numbers()}
    remarks: list[str] = []
    try:
        errors = pose_errors(mean_rotation_by_fold(true_rotation, folds), true_rotation, nothing, nothing)
        numbers["mean rotation of the other folds"] = baseline_numbers(errors.rotation_deg[primary])
    except InputError as error:
        remarks.append(f"Baseline 'mean rotation' is missing: {error}")
    angles = torch.full((len(pairs),), torch.nan, dtype=torch.float64)
    folder = config.masks or (config.predicted if config.predicted.is_dir() else config.predicted.parent)
    for index, (row, true) in enumerate(pairs):
        mask = _find_mask(folder, row, true.id)
        if mask is not None and bool(primary[index]):
            guess = principal_axes_oracle(mask, true_rotation[index])
            one = slice(index, index + 1)
            angles[index] = pose_errors(guess[None], true_rotation[one], nothing[one], nothing[one]).rotation_deg[0]
    if bool((~angles.isnan()).any()):
        numbers["mask axes, signs by an oracle"] = baseline_numbers(angles[~angles.isnan()])
    else:
        remarks.append(
            f"Baseline 'mask axes' is missing: no <stem>_mask.nii.gz in {folder}; run `pose predict --write-mask`, or "
            f"pass --masks."
        )
    remarks.append(PLAIN_CNN)
    return numbers, remarks


def _find_mask(folder: Path, row: PoseRow, identifier: str) -> Volume | None:
    """The mask of a row, by its stem or else its id, if there is one that holds anything."""
    names = (f"{row.stem}_mask.nii.gz", f"{identifier}_mask.nii.gz")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        scan = open_scan(path)
        mask = scan.frame(row.frame if scan.is_series else 0)
    except EquivoxError:  # an empty mask is a constant volume: nothing to take axes of
        return None
    return mask if int((mask.data > 0).sum()) >= 4 else None


def _rounded(value: float) -> float | None:
    return round(value, 4) if value == value else None
