"""``equivox orient``: orientations of particles from single projections."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Group, Parameter

from equivox.cli.options import Output, Run
from equivox.cli.orient_train import train
from equivox.cli.speaking import close_evaluation, close_run, model_line, say

if TYPE_CHECKING:
    from equivox.tasks.orient.predict import PredictRun

app = App(
    name="orient",
    help="Orientations of particles in cryo-EM from single projections, each with its confidence.",
    help_format="plaintext",
)
app.command(train)
PARTICLES = Group("Particles", sort_key=5)
_OPTION = Parameter(group=PARTICLES)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ParticleOptions:
    """How a particle table is read."""

    symmetry: Annotated[str | None, _OPTION] = None
    """Point group over the model's own: C1, C2 ..., D2 ..., T, T-relion, O, I1, I2, I3, I4."""
    contrast: Annotated[Literal["auto", "light", "dark"], _OPTION] = "auto"
    """Whether particles are light on dark (inverted at extraction) or dark; auto looks at 200 of them."""
    pixel_size_angstrom: Annotated[float | None, _OPTION] = None
    """Of the images, over what table and stack say."""
    project: Annotated[Path | None, _OPTION] = None
    """Folder that image paths are relative to. [working directory, the table's folder and those above]"""
    passthrough: Annotated[list[str] | None, Parameter(group=PARTICLES, consume_multiple=True, negative="")] = None
    """Passthrough files of a .cs table."""


@app.command
def predict(
    particles: str,
    /,
    *,
    out: Path,
    model: str,
    hypotheses: int = 1,
    table: ParticleOptions | None = None,
    run: Run | None = None,
) -> int:
    """Find the orientation of every particle.

    PARTICLES is a STAR file (RELION 3.0, 3.1, 5), a .cs table, or a stack (.mrcs). Writes orientations.csv (index,
    image, hypothesis, rot_deg, tilt_deg, psi_deg, confidence), a copy of the table with angles, confidence and figure
    of merit, orientations.html, orientations.json and run.json. Confidence is the probability that the truth lies
    within 10 degrees.

    For example:

    equivox orient predict particles.star --model asparagine-synthetase --out poses

    equivox orient predict particles.cs --model ./mine/model --hypotheses 3 --symmetry C2 --workers 2 --out poses --json

    Parameters
    ----------
    particles
        Table or stack.
    out
        Output folder.
    model
        Name or folder of a model; equivox model list shows the names.
    hypotheses
        Different answers per particle, 1 to 5.
    table
        How particles are read.
    run
        How the work is run.
    """
    from equivox.tasks.orient.page import render_prediction
    from equivox.tasks.orient.predict import PredictConfig, predict_orientations

    options = run or Run()
    config = PredictConfig(particles=particles, model=model, hypotheses=hypotheses, **_reading(table))
    finished = predict_orientations(
        config, out, options.choice(), command=sys.argv, progress=None if options.quiet else _print_progress(),
        page=render_prediction,
    )  # fmt: skip
    return close_run(options, finished, _closing_lines)


@app.command
def evaluate(
    particles: str,
    /,
    *,
    model: str,
    out: Path,
    device: str = "auto",
    truth: Path | None = None,
    table: ParticleOptions | None = None,
    output: Output | None = None,
) -> int:
    """Compare a model's orientations with those that a table holds.

    Mean and median error, share within 10 degrees, plain and reduced by the symmetry, whether the confidence is honest,
    views covered. Writes evaluation.html, evaluation.json and evaluation_errors.csv.

    For example:

    equivox orient evaluate refined.star --model ./mine/model --out report

    equivox orient evaluate particles.star --truth refined.star --model asparagine-synthetase --out report --json

    Parameters
    ----------
    particles
        Table whose images are looked at.
    model
        Name or folder of a model.
    out
        Output folder.
    device
        auto, cpu, cuda, cuda:N or mps.
    truth
        Table with the poses, row for row. [PARTICLES itself]
    table
        How particles are read.
    output
        How the command speaks.
    """
    from equivox.formats.atomic import require_absent
    from equivox.run.evaluation_files import evaluation_paths
    from equivox.tasks.orient.evaluate import CSV_NAME, EvaluateConfig, evaluate_orientations, write_evaluation
    from equivox.tasks.orient.evaluate_page import render_evaluation, summary_lines

    speak = output or Output()
    require_absent(evaluation_paths(out, CSV_NAME), overwrite=speak.overwrite)
    config = EvaluateConfig(
        particles=particles, model=model, truth=None if truth is None else str(truth), **_reading(table)
    )
    evaluation = evaluate_orientations(config, device=device, progress=None if speak.quiet else _print_progress())
    paths = write_evaluation(evaluation, out, page=render_evaluation(evaluation), overwrite=speak.overwrite)
    notes = [f"note: {text}" for text in evaluation.notes]
    close_evaluation(speak, evaluation.as_dict(), paths, summary_lines(evaluation), notes)
    return 0 if evaluation.left_out == 0 else 1


def _reading(table: ParticleOptions | None) -> Mapping[str, Any]:
    """Options of the table, as the tasks take them."""
    given = table or ParticleOptions()
    return {
        "symmetry": given.symmetry, "contrast": given.contrast, "pixel_size_angstrom": given.pixel_size_angstrom,
        "project": None if given.project is None else str(given.project), "passthrough": tuple(given.passthrough or ()),
    }  # fmt: skip


def _print_progress() -> Callable[[int, int], None]:
    """A line on stderr at every tenth of the work."""
    told: set[int] = set()

    def line(done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if done == total or tenth not in told:
            told.add(tenth)
            say([f"[{done}/{total}] particles"])

    return line


def _closing_lines(finished: PredictRun) -> list[str]:
    """What was run, where the results are, what has no answer."""
    lines = [f"note: {text}" for text in finished.notes]
    lines.append(model_line(finished.model, finished.device))
    if finished.failures:
        lines.append(f"without an answer: {int((~finished.usable).sum())} of {len(finished.usable)} particles")
        lines += [f"  {reason}" for _, _, reason in finished.failures[:20]]
    if bool(finished.usable.any()):
        lines += [f"results: {finished.out / 'orientations.csv'}", f"table: {finished.table}"]
        lines.append(f"page: {finished.out / 'orientations.html'}")
    return lines
