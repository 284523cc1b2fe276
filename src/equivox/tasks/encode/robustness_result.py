"""From codes of turned scans to the rotation report: metric, E and I per angle, floor, chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import equivox
from equivox.formats.subjects import Subject
from equivox.formats.tables import as_csv
from equivox.metrics.classification import balanced_accuracy, confusion
from equivox.metrics.probing import LinearReadout, predicted_classes
from equivox.tasks.encode.probe import fit_readout
from equivox.tasks.encode.robustness import ANGLES_DEG, RobustnessConfig, TurnedScan
from equivox.tasks.encode.targets import Targets, make_folds, read_targets


@dataclass(frozen=True)
class AngleRow:
    """One angle (NaN: random rotations) of one model.

    Parameters
    ----------
    metric
        MAE for numbers, balanced accuracy for classes; NaN without a target.
    E
        Mean over scans of the vectors' relative error.
    I
        Mean over scans of the invariants' change, relative to the spread between scans.
    I_plain
        The same relative to the invariants' own size.
    """

    angle_deg: float
    metric: float
    E: float
    I: float  # noqa: E741 - the field's own letter
    I_plain: float


@dataclass(frozen=True)
class ModelReport:
    """One model at every angle, upright first, random rotations last."""

    name: str
    rows: tuple[AngleRow, ...]
    spread: float
    """Effective rank of the upright invariants over scans: 1 for a code that hardly varies."""

    @property
    def upright(self) -> AngleRow:
        """As the scans lie."""
        return self.rows[0]

    @property
    def random(self) -> AngleRow:
        """Over random rotations."""
        return self.rows[-1]

    def worst(self, *, smaller_is_better: bool) -> AngleRow:
        """The angle with the worst metric."""
        turned = self.rows[1:-1]
        return max(turned, key=lambda row: row.metric if smaller_is_better else -row.metric)


@dataclass(frozen=True)
class RobustnessReport:
    """Everything that `encode robustness` found."""

    config: RobustnessConfig
    target: str | None
    kind: str
    scans: int
    turned: int
    models: tuple[ModelReport, ...]
    floor: tuple[float, ...]
    """Per angle as in the rows; 0 upright."""
    chance: float
    histogram: float
    """The metric of the intensity histogram, which no rotation changes; NaN without a target."""
    folds: str
    notes: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def metric_name(self) -> str:
        """For tables and axes."""
        if self.target is None:
            return "metric"
        return (
            f"mean absolute error of {self.target}" if self.kind == "number" else f"balanced accuracy of {self.target}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The document of ``--json`` (schema ``equivox.encode.robustness/1``)."""

        def plain(value: float) -> float | None:
            return round(value, 6) if value == value else None

        return {
            "schema": "equivox.encode.robustness/1",
            "version": equivox.__version__,
            "target": self.target,
            "metric": self.metric_name,
            "scans": self.scans,
            "turned": self.turned,
            "folds": self.folds,
            "chance": plain(self.chance),
            "histogram": plain(self.histogram),
            "results": [
                {
                    "model": model.name,
                    "effective_rank": plain(model.spread),
                    "upright": plain(model.upright.metric),
                    "random": plain(model.random.metric),
                    "rows": [
                        {
                            "angle_deg": plain(row.angle_deg) if row.angle_deg == row.angle_deg else "random",
                            "metric": plain(row.metric),
                            "E": plain(row.E),
                            "I": plain(row.I),
                            "I_plain": plain(row.I_plain),
                            "floor": plain(floor),
                        }
                        for row, floor in zip(model.rows, self.floor, strict=True)
                    ],
                }
                for model in self.models
            ],
            "skipped": [{"who": who, "why": why} for who, why in self.skipped],
            "warnings": list(self.notes),
            "errors": [{"input": who, "message": why} for who, why in self.failed],
        }


def summarise(
    config: RobustnessConfig,
    names: Sequence[str],
    subjects: Sequence[Subject],
    scans: Sequence[TurnedScan],
    *,
    failed: Sequence[tuple[str, str]],
    skipped: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> RobustnessReport:
    """Fit read-outs to upright codes and ask them about the turned ones.

    A turned scan is asked of the read-out of the folds that it is not in (first repetition of the folds).
    """
    targets: Targets | None = None
    told, kind = "", "number"
    turned = [index for index, scan in enumerate(scans) if scan.turns]
    readers: list[dict[int, LinearReadout]] = [{} for _ in names]
    fold = torch.zeros(len(scans), dtype=torch.int64)
    chance = histogram = float("nan")
    if config.target is not None:
        targets = read_targets(subjects, config.target)
        kind = targets.kind
        folds, told = make_folds(
            subjects, targets, count=config.folds, repeats=1, seed=config.seed, given=config.given_folds
        )
        fold = folds[0]
        groups = [subject.group or subject.id for subject in subjects]
        sets = [torch.tensor([scan.upright[number] for scan in scans]) for number in range(len(names))]
        shapes = torch.tensor([scan.histogram for scan in scans], dtype=torch.float64)
        plain = {}
        for one in fold.unique().tolist():
            for number, features in enumerate(sets):
                readers[number][one] = fit_readout(features, targets, groups, fold != one, seed=config.seed, fold=one)
            plain[one] = fit_readout(shapes, targets, groups, fold != one, seed=config.seed, fold=one)
        answers = [(index, plain[int(fold[index])].predict(shapes[index][None])[0]) for index in turned]
        histogram = _metric(targets, answers)
        chance = _chance(targets, turned, fold)
    models = []
    floors = [0.0]
    for number, name in enumerate(names):
        upright = torch.tensor([scan.upright[number] for scan in scans], dtype=torch.float64)
        spread = (upright - upright.mean(dim=0)).norm(dim=1).square().mean().sqrt().clamp_min(1e-300)
        still = [(index, _read(readers[number], fold, index, upright[index])) for index in turned]
        rows = [AngleRow(0.0, _metric(targets, still), 0.0, 0.0, 0.0)]
        for angle in (*map(float, ANGLES_DEG), float("nan")):
            turns = [
                (index, turn)
                for index in turned
                for turn in scans[index].turns
                if (turn.axis < 0 if angle != angle else turn.axis >= 0 and turn.angle_deg == angle)
            ]
            codes = torch.tensor([turn.scalars[number] for _, turn in turns], dtype=torch.float64)
            change = (codes - upright[[index for index, _ in turns]]).norm(dim=1)
            sizes = upright[[index for index, _ in turns]].norm(dim=1).clamp_min(1e-300)
            read = [
                (index, _read(readers[number], fold, index, code))
                for (index, _), code in zip(turns, codes, strict=True)
            ]
            rows.append(
                AngleRow(
                    angle,
                    _metric(targets, read),
                    sum(turn.E[number] for _, turn in turns) / len(turns),
                    float(change.mean() / spread),
                    float((change / sizes).mean()),
                )
            )
            if number == 0:
                floors.append(sum(turn.floor for _, turn in turns) / len(turns))
        models.append(ModelReport(name, tuple(rows), _effective_rank(upright)))
    return RobustnessReport(
        config, config.target, kind, len(scans), len(turned), tuple(models), tuple(floors), chance, histogram, told,
        tuple(notes), tuple(failed), tuple(skipped),
    )  # fmt: skip


def _read(
    readers: dict[int, LinearReadout], fold: Tensor, index: int, code: Float[Tensor, " feature"]
) -> Float[Tensor, " output"]:
    """Answer of the read-out that has not seen a scan; nothing without a target."""
    return readers[int(fold[index])].predict(code[None])[0] if readers else torch.zeros(1, dtype=torch.float64)


def _metric(targets: Targets | None, answers: Sequence[tuple[int, Tensor]]) -> float:
    """MAE or balanced accuracy of answers, each with its scan's position; NaN without a target."""
    if targets is None:
        return float("nan")
    outputs = torch.stack([answer for _, answer in answers])
    truth = targets.values[[index for index, _ in answers]]
    if targets.kind == "number":
        return float((outputs[:, 0] - truth).abs().mean())
    return balanced_accuracy(confusion(truth.long(), predicted_classes(outputs), classes=len(targets.classes)))


def _chance(targets: Targets, turned: Sequence[int], fold: Tensor) -> float:
    """Metric of the other folds' mean, or one over the number of classes."""
    if targets.kind == "class":
        return 1.0 / len(targets.classes)
    off = [abs(float(targets.values[fold != fold[index]].mean() - targets.values[index])) for index in turned]
    return sum(off) / len(off)


def _effective_rank(codes: Float[Tensor, "scan scalar"]) -> float:
    """Exponential of the entropy of the squared singular values of the centred codes."""
    values = torch.linalg.svdvals(codes - codes.mean(dim=0)).square()
    shares = values / values.sum().clamp_min(1e-300)
    return float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))


def as_table(report: RobustnessReport) -> str:
    """CSV text: one line per model and angle."""
    rows: list[list[str]] = []
    for model in report.models:
        for row, floor in zip(model.rows, report.floor, strict=True):
            angle = f"{row.angle_deg:g}" if row.angle_deg == row.angle_deg else "random"
            numbers = [row.metric, row.E, row.I, row.I_plain, floor, report.chance, report.histogram]
            rows.append([model.name, angle, *(f"{value:.6g}" if value == value else "" for value in numbers)])
    return as_csv(["model", "angle_deg", "metric", "E", "I", "I_plain", "floor", "chance", "histogram"], rows)
