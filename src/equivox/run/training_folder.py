"""The results' folder of a training: what lies in it, and what it refuses.

``model/``, ``checkpoints/``, ``curves.csv``, ``training.json`` (the plan: settings and data, to go on with) and
``run.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equivox
from equivox.errors import ConfigError, OutputError
from equivox.formats.atomic import require_absent, require_folder, write_json
from equivox.run.launched import launched

MODEL, CHECKPOINTS, CURVES, SETTINGS = "model", "checkpoints", "curves.csv", "training.json"
LICENSE_TEXT = """The weights in this folder were trained with equivox by whoever ran the training, on their own data.
Their licence is the one that they and the owners of the data give; write it here. The software that reads them,
equivox, is under Apache-2.0.
"""
"""Of a model that a user has trained."""
RESULTS = (SETTINGS, CHECKPOINTS, CURVES, MODEL)


@dataclass(frozen=True, kw_only=True)
class TrainRun:
    """How a training is run; nothing here changes what is learned, but the seed."""

    out: Path
    """Results' folder."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``."""
    workers: int = 0
    """Processes that prepare samples."""
    resume: bool = False
    """Go on from ``checkpoints/last.ckpt``."""
    overwrite: bool = False
    """Replace the results of an earlier run."""
    keep_every: int | None = None
    """Also keep the checkpoint of every so many epochs."""
    tensorboard: bool = False
    """Also write TensorBoard's files."""


def prepare_training(
    run: TrainRun,
    plan: Mapping[str, Any],
    *,
    may_change: tuple[str, ...] = ("epochs",),
    absent: Mapping[str, object] | None = None,
) -> Path:
    """A folder that can be written, empty of other results, with the plan of this run in it.

    Of several processes that torchrun or Slurm has started the first alone looks and writes.

    Parameters
    ----------
    run
        Where, and whether it goes on or replaces.
    plan
        What decides the weights, as JSON values: ``settings``, and beside them ``seed``, ``data`` and the like.
    may_change
        Settings that a resumed run may have otherwise; a rate that falls over all epochs then bends where it goes on.
    absent
        What settings stood for in runs of before they were there.

    Raises
    ------
    ConfigError
        If the run to go on with was begun with another plan.
    OutputError
        If results are in the way, or the folder cannot be written.
    """
    group = launched()
    if group is not None and group.rank > 0:
        return run.out
    out = require_folder(run.out)
    written = json.loads(json.dumps(plan))
    if run.resume and (out / SETTINGS).exists():
        _require_same_plan(out / SETTINGS, written, may_change, absent or {})
    else:
        require_absent([out / name for name in RESULTS], overwrite=run.overwrite, resumable=True)
        for name in (CHECKPOINTS, MODEL):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / CURVES).unlink(missing_ok=True)
    write_json(out / SETTINGS, {"version": equivox.__version__, **written})
    return out


def _require_same_plan(
    path: Path, plan: Mapping[str, Any], may_change: tuple[str, ...], absent: Mapping[str, object]
) -> None:
    """Refuse to go on with other settings or data than a run was begun with."""
    new = _flat(plan, plan)
    try:
        earlier = {name: value for name, value in absent.items() if name in new}
        old = {**earlier, **_flat(json.loads(path.read_text(encoding="utf-8")), plan)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path} cannot be read ({error}); start the run anew with --overwrite.") from error
    for name in sorted({*old, *new} - set(may_change)):
        if old.get(name) != new.get(name):
            long = name == "data" or isinstance(old.get(name), dict) or isinstance(new.get(name), dict)
            change = "" if long else f" ({old.get(name)} then, {new.get(name)} now)"
            raise ConfigError(
                f"{path.parent} was begun with another {name}{change}; resume with the same, or pass --overwrite."
            )


def _flat(plan: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Settings and what stands beside them, in one table."""
    return {**plan["settings"], **{name: plan[name] for name in names if name != "settings"}}
