"""``equivox pick``: find particles in electron micrographs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from equivox.cli.options import Run
from equivox.cli.pick_convert import convert
from equivox.cli.pick_evaluate import evaluate
from equivox.cli.pick_options import texts
from equivox.cli.pick_train import train
from equivox.cli.speaking import close_run, lost_lines, say

if TYPE_CHECKING:
    from equivox.tasks.pick.predict import MicrographOutcome, PickRun

app = App(
    name="pick",
    help="Find particles in electron micrographs, with calibrated scores, for RELION and cryoSPARC.",
    help_format="plaintext",
)
app.command(train)
app.command(evaluate)
app.command(convert)
IMAGES, WRITING, RELION = Group("Images", sort_key=5), Group("Writing", sort_key=6), Group("RELION job", sort_key=7)
_IMAGE, _WRITE = Parameter(group=IMAGES), Parameter(group=WRITING)
_IMAGE_FILES = Parameter(group=IMAGES, consume_multiple=True, negative="")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """What the micrographs are."""

    radius_angstrom: Annotated[float | None, _IMAGE] = None
    """Radius of the particle; images are brought to the size that the model knows. [the radius of its training]"""
    pixel_size_angstrom: Annotated[float | None, _IMAGE] = None
    """Pixel size, instead of what headers say."""
    contrast: Annotated[Literal["auto", "dark", "bright"], _IMAGE] = "auto"
    """Particles are dark or bright; auto finds out and says it."""
    edge_angstrom: Annotated[float, _IMAGE] = 0.0
    """No pick nearer to the edge of the micrograph."""
    distance_angstrom: Annotated[float | None, _IMAGE] = None
    """No two picks nearer to each other. [one radius]"""
    masks: Annotated[list[Path] | None, _IMAGE_FILES] = None
    """Images, one per micrograph by name, that are 0 where nothing shall be picked."""
    grid: Annotated[str | None, _IMAGE] = None
    """Other rotations than the model's own: d4opt-64 ...: finer angles, slower, picks a little worse."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """What is written."""

    min_probability: Annotated[float, _WRITE] = 0.5
    """Write picks of at least this probability."""
    precision: Annotated[float | None, _WRITE] = None
    """Instead: as many picks as are expected to be right in this share, over the whole run."""
    formats: Annotated[str, _WRITE] = "all"
    """Beside picks.csv: relion, box, cbox, topaz, cs (with commas), all or none."""
    relion: Annotated[Literal["3.0", "3.1", "5"], _WRITE] = "5"
    """Version of RELION that the STAR files are for."""
    page: Annotated[bool, _WRITE] = True
    """Write picks.html."""
    in_mics: Annotated[Path | None, Parameter(name=["--in-mics", "--in_mics"], group=RELION)] = None
    """Take the micrographs from this STAR file, as RELION's external jobs do, and leave their exit files."""
    pipeline_control: Annotated[
        Path | None, Parameter(name=["--pipeline-control", "--pipeline_control"], group=RELION)
    ] = None
    """Where RELION looks for the exit files. [the output folder]"""


@app.command
def predict(
    micrographs: list[str] | None = None,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "--o"])],
    model: str = "particles",
    images: ImageOptions | None = None,
    write: WriteOptions | None = None,
    run: Run | None = None,
    j: Annotated[int | None, Parameter(name="--j", group=RELION)] = None,
) -> int:
    """Pick particles.

    Writes picks.csv, picks.json, picks.html, run.json; for RELION autopick.star, coords_suffix_autopick.star and one
    STAR file per micrograph; box/, cbox/, picks_topaz.txt, picks.cs. Coordinates are 0-based pixel centres of the files
    given. Angles are those of the best rotation, in a frame of the model's own.

    For example:

    equivox pick predict "mics/*.mrc" --radius-angstrom 90 --out picks

    equivox pick predict mics --model picker/model --precision 0.8 --edge-angstrom 100 --out picks --workers 4 --resume

    Parameters
    ----------
    micrographs
        Files, folders, or globs in quotes: MRC, TIFF, PNG.
    out
        Output folder; for RELION the job's.
    model
        Name or folder of a model.
    images
        What the micrographs are.
    write
        What is written.
    run
        How the work is run.
    j
        Threads that RELION gives: as many processes.
    """
    from equivox.tasks.pick.outputs import parse_formats
    from equivox.tasks.pick.picker import PickOptions
    from equivox.tasks.pick.predict import PredictConfig
    from equivox.tasks.pick.relion_job import micrographs_of, pick_as_job

    see, put, options = images or ImageOptions(), write or WriteOptions(), run or Run()
    config = PredictConfig(
        model=model,
        options=PickOptions(
            radius_angstrom=see.radius_angstrom, pixel_size_angstrom=see.pixel_size_angstrom, contrast=see.contrast,
            edge_angstrom=see.edge_angstrom, distance_angstrom=see.distance_angstrom,
        ),
        grid=see.grid, min_probability=put.min_probability, precision=put.precision, masks=texts(see.masks),
        formats=parse_formats(put.formats), relion_version=put.relion, page=put.page,
        micrographs_star=None if put.in_mics is None else str(put.in_mics),
    )  # fmt: skip
    workers = options.workers if j is None else max(j, options.workers)
    choice = replace(options, workers=workers).choice()
    finished = pick_as_job(
        micrographs_of(micrographs or [], put.in_mics), out, config, choice,
        job=put.in_mics is not None or put.pipeline_control is not None, control=put.pipeline_control,
        command=sys.argv, progress=None if options.quiet else _print_outcome,
    )  # fmt: skip
    return close_run(options, finished, _closing_lines)


def _print_outcome(done: int, total: int, outcome: MicrographOutcome) -> None:
    """One line on stderr per finished micrograph."""
    state = "failed"
    if outcome.result is not None:
        picks = outcome.result.picks
        sure = int((picks.probability >= 0.5).sum())
        state = f"{'kept, ' if outcome.resumed else ''}{sure} picks above 0.5, {picks.contrast} particles"
    say([f"[{done}/{total}] {outcome.entry.path.name}  {state}"])


def _closing_lines(finished: PickRun) -> list[str]:
    """What was run, what is doubtful, where the results are."""
    kept = finished.picks
    lines = [f"note: {text}" for text in finished.warnings[:20]]
    lines.append(
        f"model {finished.model['name']}, radius {finished.radius_angstrom:g} Å, device {finished.device.device} "
        f"({finished.device.reason})"
    )
    lines.append(
        f"{sum(len(one) for one in kept)} picks of probability {finished.threshold:.2f} or more on {len(kept)} images"
        f"{'' if finished.calibrated else ' (not calibrated)'}"
    )
    lines += lost_lines(finished.outcomes, "without picks")
    lines.append(f"results: {finished.out / 'picks.csv'}")
    return lines
