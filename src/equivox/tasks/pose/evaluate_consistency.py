"""The label-free tests of `equivox pose evaluate --consistency`, over the scans of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from equivox.errors import EquivoxError, InputError
from equivox.formats.nifti import open_scan
from equivox.formats.poses import PoseRow
from equivox.run.device import choose_device
from equivox.tasks.pose.config import EvaluateConfig
from equivox.tasks.pose.consistency import NO_ANSWER, Consistency, check_consistency
from equivox.tasks.pose.estimate import Estimator
from equivox.tasks.pose.model import load_pose_model


def consistency_check(
    config: EvaluateConfig,
    *,
    device: str = "auto",
    estimator: Estimator | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Callable[[Sequence[PoseRow]], dict[str, Consistency]]:
    """Make the function that :func:`equivox.tasks.pose.evaluate.evaluate_poses` calls with the matched rows.

    Parameters
    ----------
    config
        Model, folder of the scans, number of rotations, seed.
    device
        As on the command line.
    estimator
        Instead of the configured model.
    progress
        Called with (done, total, name) after every prediction, some 55 per scan.

    Raises
    ------
    ModelFolderError
        If the model is missing or broken (at once, before anything is computed).
    """
    asked: Estimator = estimator or load_pose_model(config.model, str(choose_device(device).device))

    def check(rows: Sequence[PoseRow]) -> dict[str, Consistency]:
        results: dict[str, Consistency] = {}
        for number, row in enumerate(rows):
            name = row.stem if row.frame == 0 else f"{row.stem}, frame {row.frame}"
            draw = torch.Generator().manual_seed(config.seed)
            told = None if progress is None else partial(_tell, progress, number, len(rows), name)
            try:
                volume = open_scan(_scan_path(config, row)).frame(row.frame)
                results[name] = check_consistency(
                    asked, volume, generator=draw, random_count=config.random_rotations, progress=told
                )
            except EquivoxError as error:
                results[name] = Consistency((), (), NO_ANSWER, (), NO_ANSWER, reason=str(error))
        return results

    return check


def _tell(progress: Callable[[int, int, str], None], number: int, scans: int, name: str, done: int, total: int) -> None:
    """Count on over the scans, as if each took as many predictions as this one."""
    progress(number * total + done, scans * total, name)


def _scan_path(config: EvaluateConfig, row: PoseRow) -> Path:
    """The scan of a row: in the folder given, else where the table says."""
    path = Path(row.input)
    if config.scans is not None:
        found = config.scans / path.name
        if not found.is_file():
            raise InputError(f"{found} does not exist; --scans must name the folder that holds the scans.")
        return found
    if not path.is_file():
        raise InputError(f"{row.input} does not exist from here; name the folder of the scans with --scans.")
    return path
