"""`equivox pick evaluate`: a picker, or picks of any program, against labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import equivox
from equivox.errors import ConfigError, InputError
from equivox.formats.coordinates import read_coordinates
from equivox.formats.micrograph_names import match_names
from equivox.metrics.picking import (
    AreaBand,
    PickedMicrograph,
    PrecisionRecall,
    ReliabilityBin,
    area_band,
    calibration_error,
    pooled,
    reliability,
)
from equivox.run.device import DeviceChoice, choose_device
from equivox.run.evaluation_files import write_evaluation_files
from equivox.run.seeds import generator_for
from equivox.tasks.pick.config import PickSource
from equivox.tasks.pick.data import LabelledMicrograph, LabelledSet, open_labelled
from equivox.tasks.pick.judge import TOLERANCE_RADII, judged
from equivox.tasks.pick.labels import coordinate_files
from equivox.tasks.pick.picker import PickModel, load_pick_model
from equivox.tasks.pick.scoring import Candidates, find_candidates
from equivox.tasks.pick.turned import TurnedArea, turned_areas

CSV_NAME = "evaluation_picks.csv"
FILE_RADIUS_PX = 9.0
"""Working radius where picks come from files and no model says one."""
SHOWN = 3
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What `equivox pick evaluate` computes."""

    source: PickSource
    """Labelled micrographs."""
    model: str | None = None
    """Name or folder of a model."""
    picks: tuple[str, ...] = ()
    """Or: coordinate files of picks, with scores."""
    grid: str | None = None
    """Other rotations than the model's own."""
    tolerance_angstrom: float | None = None
    """A pick is right within this distance of a label; None: half a radius."""
    edge_angstrom: float = 0.0
    """Picks and labels nearer to the edge do not count."""
    threshold: float = 0.5
    """Probability at which precision and recall are given as well."""
    turned: int = 1
    """Micrographs that are also picked turned and mirrored; 0 leaves it out."""
    seed: int = 0
    """Of the confidence band."""

    def __post_init__(self) -> None:
        if (self.model is None) == (not self.picks):
            raise ConfigError("Give either --model or --picks: what is to be measured.")
        if self.tolerance_angstrom is not None and not self.tolerance_angstrom > 0.0:
            raise ConfigError(f"--tolerance-angstrom is {self.tolerance_angstrom:g}; give a number above 0.")
        if not 0.0 < self.threshold < 1.0:
            raise ConfigError(f"--threshold is {self.threshold:g}; give a probability between 0 and 1.")
        if self.turned < 0:
            raise ConfigError(f"--turned is {self.turned}; give 0 or more.")

    @property
    def tolerance(self) -> float:
        """In Å."""
        if self.tolerance_angstrom is not None:
            return self.tolerance_angstrom
        return TOLERANCE_RADII * self.source.radius_angstrom


@dataclass(frozen=True)
class Evaluated:
    """One micrograph: its picks in working pixels, which are right, its labels."""

    micrograph: LabelledMicrograph
    candidates: Candidates
    part: PickedMicrograph

    @property
    def curve(self) -> PrecisionRecall:
        """Of this micrograph alone."""
        return pooled([self.part])


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one evaluation."""

    config: EvaluateConfig
    measured: dict[str, str]
    device: DeviceChoice
    data: LabelledSet
    micrographs: tuple[Evaluated, ...]
    curve: PrecisionRecall
    band: AreaBand | None
    log_odds: Float[Tensor, " pick"]
    right: Bool[Tensor, " pick"]
    calibrated: bool
    bins: tuple[ReliabilityBin, ...]
    turned: tuple[TurnedArea, ...]
    notes: tuple[str, ...]

    @property
    def probability(self) -> Float[Tensor, " pick"]:
        """Of every pick."""
        return torch.sigmoid(self.log_odds)

    def at_threshold(self) -> tuple[float, float]:
        """Precision and recall of the picks of at least the threshold's probability; NaN without any."""
        kept = self.probability >= self.config.threshold
        hits = float(self.right[kept].double().sum())
        return hits / float(kept.sum()) if bool(kept.any()) else float("nan"), hits / max(1, self.curve.labels)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values (schema ``equivox.pick.evaluation/1``)."""
        f1, place = self.curve.best_f1()
        precision, recall = self.at_threshold()
        return {
            "schema": "equivox.pick.evaluation/1",
            "version": equivox.__version__,
            "config": {**asdict(self.config), "source": self.config.source.as_dict()},
            "measured": self.measured,
            "device": self.device.as_dict(),
            "contrast": self.data.contrast,
            "micrographs": len(self.micrographs),
            "labels": self.curve.labels,
            "picks": len(self.right),
            "tolerance_angstrom": self.config.tolerance,
            "average_precision": _finite(self.curve.area),
            "average_precision_95": None if self.band is None else [_finite(self.band.low), _finite(self.band.high)],
            "best_f1": {
                "f1": f1,
                "precision": None if place < 0 else float(self.curve.precision[place]),
                "recall": None if place < 0 else float(self.curve.recall[place]),
                "score": None if place < 0 else float(self.curve.threshold[place]),
            },
            "at_threshold": {
                "probability": self.config.threshold, "precision": _finite(precision), "recall": _finite(recall),
            },
            "calibrated": self.calibrated,
            "calibration_error": _finite(calibration_error(self.bins)) if self.calibrated else None,
            "reliability": [asdict(one) for one in self.bins] if self.calibrated else [],
            "turned": [asdict(one) for one in self.turned],
            "by_micrograph": [
                {
                    "micrograph": one.micrograph.name, "labels": one.part.labels, "picks": len(one.part.score),
                    "average_precision": _finite(one.curve.area), "best_f1": one.curve.best_f1()[0],
                }
                for one in self.micrographs
            ],
            "unmatched": self.data.unmatched,
            "notes": list(self.notes),
        }  # fmt: skip


def evaluate_picks(config: EvaluateConfig, *, device: str = "auto", progress: Progress | None = None) -> Evaluation:
    """Measure a model, or picks in files, on labelled micrographs.

    Raises
    ------
    InputError
        If nothing can be read, or names fit nothing.
    ModelFolderError
        If the model is missing or broken.
    """
    choice = choose_device(device)
    model = None if config.model is None else load_pick_model(config.model, str(choice.device), grid=config.grid)
    radius_px = FILE_RADIUS_PX if model is None else model.input.radius_px
    data = open_labelled(config.source, radius_px=radius_px, seed=config.seed, progress=progress, split=False)
    pixel = config.source.radius_angstrom / radius_px
    margin, tolerance = config.edge_angstrom / pixel, config.tolerance / pixel
    notes = list(data.warnings)
    if model is not None:
        found = [
            find_candidates(
                model.network, one.image, distance_px=radius_px, margin_px=margin, keep=one.keep,
                device=str(choice.device),
            )
            for one in data.validation
        ]  # fmt: skip
        calibrated = model.calibration.fitted
        measured = {"model": model.folder.name, "sha256": model.folder.sha256, "path": str(model.folder.path)}
        notes += _seen_notes(model, config)
    else:
        found = _read_picks(config, data.validation, notes)
        calibrated = False
        measured = {"picks": ", ".join(config.picks)}
    micrographs = tuple(
        Evaluated(
            one, candidates,
            judged(
                candidates, one.labels_px, radius_px, tolerance_px=tolerance,
                size=(one.image.shape[0], one.image.shape[1]), margin_px=margin,
            ),
        )
        for one, candidates in zip(data.validation, found, strict=True)
    )  # fmt: skip
    parts = [one.part for one in micrographs]
    score = torch.cat([part.score for part in parts]).double()
    right = torch.cat([part.right for part in parts])
    log_odds = score if model is None else model.calibration.log_odds(score)
    turned: tuple[TurnedArea, ...] = ()
    if model is not None and config.turned:
        turned = turned_areas(
            model, data.validation[: config.turned], tolerance_px=tolerance, margin_px=margin, device=str(choice.device)
        )
    return Evaluation(
        config=config,
        measured=measured,
        device=choice,
        data=data,
        micrographs=micrographs,
        curve=pooled(parts),
        band=area_band(parts, generator=generator_for(config.seed, "band")),
        log_odds=log_odds,
        right=right,
        calibrated=calibrated,
        bins=tuple(reliability(torch.sigmoid(log_odds), right)),
        turned=turned,
        notes=tuple(dict.fromkeys(notes)),
    )


def write_evaluation(evaluation: Evaluation, out: Path, *, page: str, overwrite: bool) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation_picks.csv`` and the page; returns their paths.

    Raises
    ------
    OutputError
        If a file is there already and ``overwrite`` is not given, or the folder cannot be written.
    """
    names = [one.micrograph.name for one in evaluation.micrographs for _ in range(len(one.part.score))]
    columns = zip(
        names, evaluation.log_odds.tolist(), evaluation.probability.tolist(), evaluation.right.tolist(), strict=True
    )
    return write_evaluation_files(
        out, evaluation.as_dict(), page, table=CSV_NAME, overwrite=overwrite,
        header=["micrograph", "log_odds", "probability", "right"],
        rows=[[name, f"{odds:.4f}", f"{chance:.6f}", int(right)] for name, odds, chance, right in columns],
    )  # fmt: skip


def _read_picks(
    config: EvaluateConfig, micrographs: Sequence[LabelledMicrograph], notes: list[str]
) -> list[Candidates]:
    """Picks of files, on the micrographs that they belong to, in working pixels."""
    names = [one.name for one in micrographs]
    places: list[list[tuple[float, float, float]]] = [[] for _ in micrographs]
    scored = True
    for path in coordinate_files(config.picks):
        read = read_coordinates(path)
        notes += read.warnings
        scored &= read.score is not None
        score = np.ones(len(read)) if read.score is None else read.score
        matching = match_names(read.micrograph, names)
        for index, x, y, value in zip(
            matching.found, read.x_px.tolist(), read.y_px.tolist(), score.tolist(), strict=True
        ):
            if index >= 0:
                places[index].append((y, x, value))
    if not any(places):
        raise InputError("No pick lies on a labelled micrograph; give picks and labels of the same micrographs.")
    if not scored:
        notes.append("The picks have no score: precision and recall are one point, and the area says little.")
    found = []
    for one, rows in zip(micrographs, places, strict=True):
        table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
        order = torch.sort(table[:, 2], descending=True, stable=True).indices
        yx = one.prepared.to_working(table[order, :2]).float()
        unknown = torch.full((len(rows),), float("nan"))
        found.append(Candidates(yx, table[order, 2].float(), torch.full((len(rows),), -1), unknown))
    return found


def _seen_notes(model: PickModel, config: EvaluateConfig) -> list[str]:
    """Whether the model was trained on what it is asked about."""
    trained = model.folder.config.get("provenance", {}).get("data", [])
    seen = {name for one in trained if isinstance(one, dict) for name in one.get("micrographs", [])}
    if seen & set(config.source.micrographs):
        return ["The model was trained on some of these micrographs: the numbers flatter it."]
    return []


def _finite(value: float) -> float | None:
    return value if value == value else None
