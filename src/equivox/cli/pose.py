"""``equivox pose``: where a head lies in 3D and 4D scans, and how far from the truth."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from equivox.cli.options import Output, Run
from equivox.cli.pose_template import register as register_template
from equivox.cli.pose_transform import register as register_transforms
from equivox.cli.speaking import close_evaluation, close_run, model_line, say

if TYPE_CHECKING:
    from equivox.tasks.pose.predict import PoseOutcome, PredictRun

DEFAULT_MODEL = "fetal-head-epi"
"""As in ``tasks/pose/config.py``, which imports no torch itself but lies in a room whose neighbours do."""
_FLAG = Parameter(negative="")

app = App(
    name="pose",
    help="Position and orientation of a head (or another object) in 3D and 4D scans.",
    help_format="plaintext",
)
app.command("equivox.cli.pose_train:app", name="train", help="Train a segmentation or a rotation network.")
register_transforms(app)
register_template(app)


@app.command
def predict(
    inputs: list[str],
    /,
    *,
    out: Path,
    model: str = DEFAULT_MODEL,
    mask: str | None = None,
    write_mask: Annotated[bool, _FLAG] = False,
    write_aligned: Annotated[bool, _FLAG] = False,
    transform_format: Literal["itk", "lta", "fsl", "json"] = "itk",
    reference: str | None = None,
    frame: Literal["world", "voxel"] | None = None,
    direction: Literal["canonical-to-input", "input-to-canonical"] = "canonical-to-input",
    published: Annotated[bool, _FLAG] = False,
    smooth: Annotated[bool, _FLAG] = False,
    smooth_frames: int = 3,
    motion_reference: Literal["first", "median"] = "first",
    report: bool = True,
    viewer: Literal["first", "all", "none"] = "first",
    run: Run | None = None,
) -> int:
    """Find the pose of the head in every scan.

    Writes poses.csv, poses.json, a 4x4 matrix and a transform per scan (or per frame of a series), run.json and
    report.html. World is RAS+, units are mm and degrees. For research; not a medical device.

    For example:

    equivox pose predict scan.nii.gz --out poses

    equivox pose predict "bids/sub-*/anat/*_T2w.nii.gz" --out poses --workers 4 --json > poses.json

    Parameters
    ----------
    inputs
        NIfTI or MGH files, folders, globs in quotes, or a BIDS root; 3D volumes and 4D series.
    out
        Output folder.
    model
        Name or folder of a model.
    mask
        Mask of the head, or a folder with one per scan (STEM_mask.nii.gz); skips the localisation.
    write_mask
        Write the mask of what was found.
    write_aligned
        Write each scan resliced into the head's own axes.
    transform_format
        File type of the transform: ITK .tfm, FreeSurfer .lta, FSL .mat or our .json.
    reference
        Grid in the head's frame for lta, fsl and aligned volumes; a cube of 160 mm by default.
    frame
        What the 4x4 in STEM_pose.npy maps to: world mm (default), or voxel indices (default with --published).
    direction
        Which way the written 4x4 and transform map points.
    published
        The original's behaviour and matrix, for imported checkpoints.
    smooth
        Smooth the poses of each series over time; single wild frames have no say. STEM_motion.json keeps what was.
    smooth_frames
        Neighbours on either side that the smoothing looks at.
    motion_reference
        What STEM_motion.csv measures the motion of a series against: its first pose, or the median of all.
    report
        Write report.html.
    viewer
        Interactive viewers: for the first ten scans, all, or none.
    run
        How the work is run.
    """
    from equivox.tasks.pose.config import PredictConfig
    from equivox.tasks.pose.predict import predict_poses

    options = run or Run()
    config = PredictConfig(
        model=model, mask=mask, transform_format=transform_format, reference=reference, frame=frame,
        direction=direction, published=published, write_mask=write_mask, write_aligned=write_aligned, smooth=smooth,
        smooth_frames=smooth_frames, motion_reference=motion_reference, report=report, viewer=viewer,
    )  # fmt: skip
    finished = predict_poses(
        inputs, out, config, options.choice(), command=sys.argv, progress=None if options.quiet else print_outcome
    )
    return close_run(options, finished, closing_lines)


@app.command
def evaluate(
    predicted: Path,
    truth: Path,
    /,
    *,
    out: Path | None = None,
    masks: Path | None = None,
    consistency: Annotated[bool, _FLAG] = False,
    model: str = DEFAULT_MODEL,
    scans: Path | None = None,
    symmetry: Literal["mirror", "c2", "none"] = "mirror",
    random_rotations: int = 20,
    resamples: int = 10_000,
    seed: int = 0,
    device: str = "auto",
    output: Output | None = None,
) -> int:
    """Compare predicted poses with true ones.

    Geodesic errors per stack and per subject, raw and after removal of one constant offset, bootstrap intervals over
    subjects, strata, flips, baselines. Writes evaluation.json, evaluation_errors.csv and evaluation.html.

    For example:

    equivox pose evaluate poses truth.csv

    equivox pose evaluate poses truth.csv --consistency --out evaluation --json

    Parameters
    ----------
    predicted
        A poses.csv, or the folder that holds it.
    truth
        Table of true poses: columns of a poses.csv, or id, file, qx, qy, qz, qw, tx, ty, tz and any others.
    out
        Output folder; by default that of the predicted table.
    masks
        Folder with STEM_mask.nii.gz for the mask baseline; by default that of the predicted table.
    consistency
        Also ask the model itself about every scan: turned, halved, cropped otherwise, mirrored. Takes long.
    model
        Model that --consistency asks.
    scans
        Folder of the scans for --consistency; by default the paths in the predicted table.
    symmetry
        Of the object, as it was trained: with c2, poses that differ by a half turn about its z axis count as the same.
    random_rotations
        Random rotations per scan for --consistency.
    resamples
        Draws of the bootstrap.
    seed
        Seed of everything random.
    device
        For --consistency: auto, cpu, cuda, cuda:N or mps.
    output
        How the command speaks.
    """
    from equivox.formats.atomic import require_absent
    from equivox.run.evaluation_files import evaluation_paths
    from equivox.tasks.pose.config import EvaluateConfig
    from equivox.tasks.pose.evaluate import ERRORS_NAME, evaluate_poses, write_evaluation
    from equivox.tasks.pose.evaluate_page import flip_lines, render_evaluation, summary_lines, unmatched_lines

    speak = output or Output()
    place = out or (predicted if predicted.is_dir() else predicted.parent)
    require_absent(evaluation_paths(place, ERRORS_NAME), overwrite=speak.overwrite)
    config = EvaluateConfig(
        predicted=predicted, truth=truth, masks=masks, resamples=resamples, seed=seed, consistency=consistency,
        model=model, scans=scans, random_rotations=random_rotations, symmetry=symmetry,
    )  # fmt: skip
    check = None
    if consistency:
        from equivox.tasks.pose.evaluate_consistency import consistency_check

        check = consistency_check(config, device=device, progress=None if speak.quiet else _print_consistency)
    evaluation = evaluate_poses(config, consistency=check)
    paths = write_evaluation(evaluation, place, page=render_evaluation(evaluation), overwrite=speak.overwrite)
    summary = [*summary_lines(evaluation), *flip_lines(evaluation)]
    notes = [*unmatched_lines(evaluation.unmatched), *evaluation.notes]
    close_evaluation(speak, evaluation.as_dict(), paths, summary, notes)
    return 0


def print_outcome(done: int, total: int, outcome: PoseOutcome) -> None:
    """One line on stderr per finished input."""
    rows = outcome.rows()
    first = next((row for row in rows if row.world_from_head is not None), rows[0])
    counter = f"[{done}/{total}]"
    state = "kept" if outcome.resumed else first.status
    line = f"{counter} {outcome.entry.path.name}  {state}"
    if first.world_from_head is not None:
        x, y, z = first.world_from_head.translation_mm.tolist()
        line += f"  confidence {first.confidence:.2f}  centre ({x:.1f}, {y:.1f}, {z:.1f}) mm"
        line += f"  mask {first.mask_volume_ml:.0f} mL  {sum(row.seconds for row in rows):.1f} s"
    if len(rows) > 1:
        line += f"  {sum(row.world_from_head is not None for row in rows)} of {len(rows)} frames"
    if first.reason and first.world_from_head is not None:
        line += f"  {first.reason}"
    say([line])


def closing_lines(finished: PredictRun) -> list[str]:
    """What was run, where the results are, what has no pose."""
    rows = finished.rows
    lost = [row for row in rows if row.world_from_head is None]
    lines = [model_line(finished.model, finished.device)]
    lines += [f"note: {text}" for text in finished.warnings[:10]]
    if lost:
        lines.append(f"without a pose: {len(lost)} of {len(rows)}")
        for row in lost[:20]:
            name = f"{row.input}{f', frame {row.frame}' if row.frame else ''}: "
            lines.append(f"  {'' if row.reason.startswith(row.input) and not row.frame else name}{row.reason}")
    page = finished.out / "report.html"
    lines.append(
        f"{'page' if finished.config.report else 'results'}: {page if finished.config.report else finished.out}"
    )
    return lines


def _print_consistency(done: int, total: int, name: str) -> None:
    if done == 1 or done % 10 == 0 or done == total:
        say([f"[{done}/{total}] predictions for --consistency: {name}"])
