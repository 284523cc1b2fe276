"""``equivox pick evaluate``: a picker, or picks of any program, against labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from equivox.cli.options import Output
from equivox.cli.pick_options import LabelOptions, texts
from equivox.cli.speaking import close_evaluation, say_now_and_then

MEASURE = Group("Measure", sort_key=6)
_OPTION = Parameter(group=MEASURE)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """How picks are judged."""

    tolerance_angstrom: Annotated[float | None, _OPTION] = None
    """A pick is right within this distance of a label. [half a radius]"""
    edge_angstrom: Annotated[float, _OPTION] = 0.0
    """Picks and labels nearer to the edge do not count."""
    threshold: Annotated[float, _OPTION] = 0.5
    """Probability at which precision and recall are given as well."""
    grid: Annotated[str | None, _OPTION] = None
    """Other rotations than the model's own."""
    turned: Annotated[int, _OPTION] = 1
    """Micrographs that are also picked turned and mirrored; 0 leaves it out."""
    seed: Annotated[int, _OPTION] = 0
    """Of the confidence band."""
    device: Annotated[str, _OPTION] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


def evaluate(
    micrographs: list[str],
    /,
    *,
    coordinates: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    radius_angstrom: float,
    out: Path,
    model: str | None = None,
    picks: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    labels: LabelOptions | None = None,
    measure: MeasureOptions | None = None,
    output: Output | None = None,
) -> int:
    """Measure a picker, or the picks of any program, on labelled micrographs.

    Precision, recall, their area with a confidence band, best F1, reliability of the probabilities, scores of
    micrographs that are turned. Writes evaluation.html, evaluation.json and evaluation_picks.csv.

    For example:

    equivox pick evaluate "mics/*.mrc" --coordinates labels.star --radius-angstrom 90 --model picker/model --out report

    equivox pick evaluate mics --coordinates labels.txt --radius-angstrom 90 --picks topaz.txt --out topaz-report --json

    Parameters
    ----------
    micrographs
        Files, folders, or globs in quotes.
    coordinates
        Labels: files, folders or globs of any format that is read.
    radius_angstrom
        Radius of the particle.
    out
        Output folder.
    model
        Name or folder of a model.
    picks
        Or: coordinate files of picks, with scores.
    labels
        How labels are read.
    measure
        How picks are judged.
    output
        How the command speaks.
    """
    from equivox.formats.atomic import require_absent
    from equivox.run.evaluation_files import evaluation_paths
    from equivox.tasks.pick.config import PickSource
    from equivox.tasks.pick.evaluate import CSV_NAME, EvaluateConfig, evaluate_picks, write_evaluation
    from equivox.tasks.pick.evaluate_page import render_evaluation, summary_lines

    speak, read, judge = output or Output(), labels or LabelOptions(), measure or MeasureOptions()
    require_absent(evaluation_paths(out, CSV_NAME), overwrite=speak.overwrite)
    config = EvaluateConfig(
        source=PickSource(
            micrographs=tuple(micrographs), coordinates=texts(coordinates),
            radius_angstrom=radius_angstrom, pixel_size_angstrom=read.pixel_size_angstrom,
            masks=texts(read.masks), contrast=read.contrast, flip_y=read.flip_y,
            coordinate_scale=read.coordinate_scale, split=None if read.split is None else str(read.split),
            validation_share=read.validation_share,
        ),
        model=model, picks=texts(picks), grid=judge.grid,
        tolerance_angstrom=judge.tolerance_angstrom, edge_angstrom=judge.edge_angstrom, threshold=judge.threshold,
        turned=judge.turned, seed=judge.seed,
    )  # fmt: skip
    evaluation = evaluate_picks(config, device=judge.device, progress=None if speak.quiet else say_now_and_then)
    paths = write_evaluation(evaluation, out, page=render_evaluation(evaluation), overwrite=speak.overwrite)
    notes = [f"note: {text}" for text in evaluation.notes]
    close_evaluation(speak, evaluation.as_dict(), paths, summary_lines(evaluation), notes)
    return 0
