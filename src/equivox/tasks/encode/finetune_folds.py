"""``equivox encode finetune --fold``: an encoder finetuned once per fold, and judged on the persons that it never saw.

Folds come from the subjects' table, or are drawn by person; either way nobody lies in two. Of the scans outside a fold
some persons choose the epoch; the fold itself is opened once, in the end: upright, and each scan turned by one uniform
rotation, the same for every encoder. Each fold has a folder of its own, so that a cluster can train them side by side.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equivox
from equivox.errors import ConfigError
from equivox.formats.atomic import require_absent, require_folder, write_json, write_text
from equivox.formats.subjects import Subject
from equivox.formats.tables import records_as_csv
from equivox.run.launched import launched
from equivox.run.record import RUN_JSON, RunRecord
from equivox.run.training_folder import MODEL, SETTINGS
from equivox.run.training_session import Progress
from equivox.tasks.encode.finetune import PREDICTIONS, finetune_parts, predict_targets, require_known
from equivox.tasks.encode.finetune_numbers import TargetLine, target_lines
from equivox.tasks.encode.fold_choice import FoldChoice, choose_folds
from equivox.tasks.encode.photometric import DegradationRange
from equivox.tasks.encode.train import TrainRun
from equivox.tasks.encode.train_config import FinetuneConfig
from equivox.tasks.encode.train_data import checked_parts, draw_validation, find_subjects
from equivox.tasks.encode.train_samples import BrainSamples, Drawing, ScanSet, ScanStore
from equivox.weights.folder import read_model_folder

SUMMARY, HELD_OUT = "crossvalidation.json", "held_out.csv"
OnFold = Callable[[str, Mapping[str, int]], Progress | None]
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """A finished cross-validation, or one fold of it.

    Parameters
    ----------
    out
        Results' folder.
    told
        Where the folds come from.
    folds
        Label -> scans for training, validation and test.
    rows
        Held-out answers, one row per scan.
    lines
        Numbers per target; empty for one fold alone.
    warnings
        What a user should know.
    """

    out: Path
    told: str
    folds: Mapping[str, Mapping[str, int]]
    rows: tuple[Row, ...]
    lines: tuple[TargetLine, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The document of ``--json`` and ``crossvalidation.json``."""
        return {
            "schema": "equivox.encode.crossvalidation/1",
            "version": equivox.__version__,
            "out": str(self.out),
            "folds_from": self.told,
            "folds": {label: dict(counts) for label, counts in self.folds.items()},
            "scans": len(self.rows),
            "people": len({row["id"] for row in self.rows}),
            "results": [line.as_dict() for line in self.lines],
            "warnings": list(self.warnings),
            "errors": [],
        }


def finetune_folds(
    inputs: Sequence[str | Path],
    model: str,
    config: FinetuneConfig,
    run: TrainRun,
    fold: FoldChoice,
    *,
    network: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    on_fold: OnFold | None = None,
) -> CrossValidated:
    """Finetune once per fold into ``fold-LABEL/`` and write ``predictions.csv`` and ``crossvalidation.json``.

    Parameters
    ----------
    inputs, model, config, run, network, command
        As for :func:`equivox.tasks.encode.finetune.finetune_encoder`. With ``run.resume`` folds that are done are
        read, one that was cut goes on.
    fold
        Which folds.
    on_fold
        Called with each fold's label and counts before it is trained; returns what is called with its epochs.

    Raises
    ------
    EquivoxError
        If the data or the settings cannot be used, folds leak, results are in the way, or an extra is missing.
    """
    if fold.only is None and launched() is not None:
        raise ConfigError("several processes train one fold at a time; name it, as in --fold fold0:3.")
    found, notes = find_subjects(inputs, images=run.images, layout=run.layout)
    subjects = require_known(ScanSet(tuple(found)), config.targets).subjects
    if len(subjects) < len(found):
        notes.append(f"{len(found) - len(subjects)} scans without {' or '.join(config.targets)} take no part.")
    subjects, labels, told = choose_folds(subjects, fold, config.targets, run.seed, notes)
    wanted = sorted(set(labels), key=lambda one: (len(one), one))
    if fold.only is not None and fold.only not in wanted:
        raise ConfigError(f"--fold names the fold {fold.only!r}; {told} has {', '.join(wanted)}.")
    out = require_folder(run.out)
    if fold.only is None:
        names = (SUMMARY, PREDICTIONS, RUN_JSON)
        require_absent([out / name for name in names], overwrite=run.overwrite or run.resume, resumable=True)
    record = RunRecord(command, {**config.as_dict(), "model": model, "fold": told, "out": str(out)}, seed=run.seed)
    counts: dict[str, dict[str, int]] = {}
    rows: list[Row] = []
    try:
        for label in wanted if fold.only is None else [fold.only]:
            with record.timed(f"fold {label}"):
                counts[label], answers = _one_fold(
                    label, subjects, labels, told, model, config, run, network, command, on_fold
                )
            rows += answers
    except KeyboardInterrupt:
        if fold.only is None:
            record.write(out / RUN_JSON, "interrupted")
        raise
    lines = target_lines(rows, config.targets, seed=run.seed) if fold.only is None else ()
    finished = CrossValidated(out, told, counts, tuple(rows), lines, tuple(notes))
    if fold.only is None:
        write_text(out / PREDICTIONS, records_as_csv(rows))
        write_json(out / SUMMARY, finished.as_dict())
        for note in notes:
            record.add_warning(note)
        record.add("folds", counts)
        record.write(out / RUN_JSON, "done")
    return finished


def _one_fold(
    label: str,
    subjects: Sequence[Subject],
    labels: Sequence[str],
    told: str,
    model: str,
    config: FinetuneConfig,
    run: TrainRun,
    network: Mapping[str, Any] | None,
    command: Sequence[str],
    on_fold: OnFold | None,
) -> tuple[dict[str, int], list[Row]]:
    """Train without one fold and answer for it; a fold that is done is read."""
    test = ScanSet(tuple(one for one, own in zip(subjects, labels, strict=True) if own == label))
    rest = [one for one, own in zip(subjects, labels, strict=True) if own != label]
    training, validation = draw_validation(rest, config.share_validation, run.seed)
    parts = checked_parts(training, validation, ())
    counts = {"training": len(training), "validation": len(validation), "test": len(test)}
    own = replace(run, out=run.out / f"fold-{label}")
    fold = {"fold": {"label": label, "from": told, "test": test.digest()}}
    progress = None if on_fold is None else on_fold(label, counts)
    done = own.out / HELD_OUT
    if run.resume and done.exists() and _as_before(own.out / SETTINGS, config, model, fold):
        with done.open(newline="", encoding="utf-8") as stream:
            return counts, list(csv.DictReader(stream))
    require_absent([done], overwrite=run.overwrite or run.resume, resumable=True)
    done.unlink(missing_ok=True)
    finetune_parts(parts, model, config, own, network=network, command=command, progress=progress, told=fold)
    folder = read_model_folder(own.out / MODEL)
    size = folder.config["input"]
    answers = [
        predict_targets(
            folder,
            BrainSamples(
                ScanStore(test, float(size["voxel_size_mm"]), brain_extracted=run.brain_extracted),
                Drawing(
                    side=int(size["side"]), ranges=DegradationRange().scaled(0.0), turn_first=turned,
                    degrade_first=False,
                ),
                training=False,
                seed=run.seed,
            ),
            test,
        )
        for turned in (False, True)
    ]  # fmt: skip
    rows = _rows(label, answers[0], answers[1], folder.config["output"])
    write_text(done, records_as_csv(rows))
    return counts, rows


def _rows(label: str, upright: Sequence[Row], turned: Sequence[Row], output: Mapping[str, Any]) -> list[Row]:
    """Answers for upright and turned scans side by side; for ages also the mean that the training scans have."""
    rows: list[Row] = []
    for one, other in zip(upright, turned, strict=True):
        known = {"id", "session", *output["targets"]}
        row: dict[str, object] = {"id": one["id"], "session": one["session"], "fold": label}
        row |= {name: value for name, value in one.items() if name not in row}
        row |= {f"{name}_turned": value for name, value in other.items() if name not in known}
        if "age" in output["targets"]:
            row["age_constant"] = round(float(output["age_mean"]), 3)
        rows.append(row)
    return rows


def _as_before(path: Path, config: FinetuneConfig, model: str, fold: Mapping[str, Any]) -> bool:
    """Whether a fold was trained for the same number of epochs; anything else that differs is refused later."""
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    now = json.loads(json.dumps({**config.as_dict(), "model": model, **fold}))
    return all(before.get(name) == value for name, value in now.items())
