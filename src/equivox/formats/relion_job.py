"""The files by which RELION finds picks: one STAR per micrograph, the job's list, and an external job's exit files.

RELION 3.1 and later read a list ``autopick.star`` (block ``coordinate_files``); 3.0 reads a text file
``coords_suffix_autopick.star`` that names the STAR file of the micrographs. Both are written, so that no version finds
an empty listing. Picks lie below the job's folder at the micrograph's path below its own job.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from equivox.formats.atomic import write_text
from equivox.formats.coordinates import Coordinates
from equivox.formats.coordinates_star import UNSET, picks_below_job
from equivox.formats.star import StarBlock, make_block, write_star

RelionVersion = Literal["3.0", "3.1", "5"]
COMMENTS: dict[RelionVersion, int | None] = {"3.0": None, "3.1": 30001, "5": 50001}
"""Number of the ``# version`` line."""
LARGEST_MERIT = 1e4
"""RELION's log file step fails over figures of merit far beyond this."""
LIST_NAME = "autopick.star"
SUFFIX_NAME = "coords_suffix_autopick.star"
MICROGRAPHS_NAME = "micrographs.star"
NODES_NAME = "RELION_OUTPUT_NODES.star"
SUCCESS_NAME, FAILURE_NAME = "RELION_JOB_EXIT_SUCCESS", "RELION_JOB_EXIT_FAILURE"


def picks_block(coordinates: Coordinates, *, version: RelionVersion = "5") -> StarBlock:
    """The block ``data_`` of one micrograph's picks; angles that nobody determined are -999 or left out."""
    count = len(coordinates)
    columns: dict[str, Sequence[float | int]] = {
        "rlnCoordinateX": coordinates.x_px.tolist(),
        "rlnCoordinateY": coordinates.y_px.tolist(),
    }
    if coordinates.score is not None:
        columns["rlnAutopickFigureOfMerit"] = np.clip(coordinates.score, -LARGEST_MERIT, LARGEST_MERIT).tolist()
    columns["rlnClassNumber"] = [0] * count
    angles = coordinates.rot_tilt_psi_deg
    if angles is None:
        columns["rlnAnglePsi"] = [UNSET] * count
    else:
        known = np.where(np.isnan(angles), UNSET, angles)
        columns["rlnAnglePsi"] = known[:, 2].tolist()
        if not np.isnan(angles[:, :2]).any():
            columns["rlnAngleRot"], columns["rlnAngleTilt"] = known[:, 0].tolist(), known[:, 1].tolist()
    return make_block("", columns, version=COMMENTS[version])


def write_picks(
    folder: Path | str,
    coordinates: Coordinates,
    *,
    version: RelionVersion = "5",
    micrographs_star: str | None = None,
    micrographs: Sequence[str] = (),
) -> list[Path]:
    """Write every micrograph's picks and the job's lists.

    RELION's own picking leaves a file for every micrograph that it finished, also where it found nothing, and lists
    each; extraction then sees an empty table and goes on. A micrograph that could not be read has no file and is not
    listed.

    Parameters
    ----------
    folder
        The job's folder. Paths in the list begin with it as it is given here, so give it relative to RELION's project
        folder and run there.
    coordinates
        Picks whose names are the micrographs' paths as RELION knows them.
    version
        Decides the comment lines.
    micrographs_star
        The STAR file of the micrographs, as RELION knows it; without it one with the names is written into the
        folder.
    micrographs
        Names of all micrographs that were picked, in order; those without a pick get an empty table.

    Returns
    -------
    list
        The files, the lists first.
    """
    folder = Path(folder)
    shown = folder if not folder.is_absolute() else _relative(folder)
    written: list[Path] = []
    names, files = [], []
    for name, indices in (dict.fromkeys(micrographs, ()) | coordinates.by_micrograph()).items():
        below = picks_below_job(name)
        path = folder / below
        write_star(path, [picks_block(coordinates.select(indices), version=version)])
        written.append(path)
        names.append(name)
        files.append((shown / below).as_posix())
    columns = {"rlnMicrographName": names, "rlnMicrographCoordinates": files}
    write_star(folder / LIST_NAME, [make_block("coordinate_files", columns, version=COMMENTS[version])])
    lists = [folder / LIST_NAME, folder / SUFFIX_NAME]
    if micrographs_star is None:
        block = make_block("" if version == "3.0" else "micrographs", {"rlnMicrographName": names})
        write_star(folder / MICROGRAPHS_NAME, [block])
        lists.append(folder / MICROGRAPHS_NAME)
        micrographs_star = (shown / MICROGRAPHS_NAME).as_posix()
    write_text(folder / SUFFIX_NAME, micrographs_star + "\n")
    return [*lists, *written]


def write_exit_files(folder: Path | str, *, success: bool, nodes: Sequence[str] = (LIST_NAME,)) -> list[Path]:
    """What RELION waits for at the end of an external job: the nodes it made, and the mark of success or failure."""
    folder = Path(folder)
    shown = folder if not folder.is_absolute() else _relative(folder)
    other = folder / (FAILURE_NAME if success else SUCCESS_NAME)
    other.unlink(missing_ok=True)
    written = []
    if success:
        names = [(shown / node).as_posix() for node in nodes]
        columns: dict[str, Sequence[str | int]] = {
            "rlnPipeLineNodeName": names,
            "rlnPipeLineNodeType": [2] * len(names),
            "rlnPipeLineNodeTypeLabel": ["MicrographsCoords.star.relion.autopick"] * len(names),
        }
        write_star(folder / NODES_NAME, [make_block("output_nodes", columns)])
        written.append(folder / NODES_NAME)
    mark = folder / (SUCCESS_NAME if success else FAILURE_NAME)
    write_text(mark, "")
    return [*written, mark]


def _relative(folder: Path) -> Path:
    """A folder as seen from here where it lies below, as RELION's project has it."""
    return Path(os.path.relpath(folder)) if folder.resolve().is_relative_to(Path.cwd().resolve()) else folder
