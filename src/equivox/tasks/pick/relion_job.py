"""Picking as a job of RELION: micrographs from its STAR file, exit files where it looks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equivox.errors import InputError
from equivox.formats.relion_job import write_exit_files
from equivox.formats.star import read_star
from equivox.run.batch import EXIT_DONE, EXIT_SOME_FAILED, RunChoice
from equivox.tasks.pick.predict import PickRun, PredictConfig, Progress, pick_micrographs


def micrographs_of(given: Sequence[str], star: Path | None) -> list[str]:
    """Micrographs named on the command line and in a STAR file, as they stand there.

    Raises
    ------
    InputError
        If the file names none.
    """
    if star is None:
        return list(given)
    found = read_star(star)
    block = next((block for block in found.blocks if block.has("rlnMicrographName")), None)
    if block is None:
        raise InputError(f"{star} has no column _rlnMicrographName; give the STAR file of the micrographs.")
    return [*given, *block.texts("rlnMicrographName")]


def pick_as_job(
    inputs: Sequence[str],
    out: Path,
    config: PredictConfig,
    run: RunChoice,
    *,
    job: bool,
    control: Path | None,
    command: Sequence[str],
    progress: Progress | None,
) -> PickRun:
    """Pick; if this is a job of RELION, leave its marks of success or failure behind."""
    if not job:
        return pick_micrographs(inputs, out, config, run, command=command, progress=progress)
    folder = out if control is None else control
    try:
        finished = pick_micrographs(inputs, out, config, run, command=command, progress=progress)
    except BaseException:
        write_exit_files(folder, success=False)
        raise
    good = finished.exit_code in (EXIT_DONE, EXIT_SOME_FAILED)
    write_exit_files(out, success=good)
    if folder.resolve() != out.resolve():
        write_exit_files(folder, success=good, nodes=())
    return finished
