"""Numbers of a cross-validated finetuning: each target upright, turned, and beside what needs no scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from equivox.metrics.class_intervals import ClassNumbers, class_numbers
from equivox.metrics.grouped import Resamples, draw_groups
from equivox.metrics.regression import RegressionNumbers, regression_numbers
from equivox.run.seeds import generator_for

RESAMPLES = 2000
"""Draws of the bootstrap over people."""
Setting = Literal["upright", "turned", "constant"]
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TargetLine:
    """How well one target was read in one setting.

    Parameters
    ----------
    target
        ``age``, ``sex`` or ``diagnosis``.
    setting
        Scans as they lie, turned by one uniform rotation each, or not looked at: the mean age of the fold's training
        scans (``constant``; of classes the guess is one over their number).
    scans
        Of which the target is known.
    numbers
        With intervals over people.
    """

    target: str
    setting: Setting
    scans: int
    numbers: RegressionNumbers | ClassNumbers

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"target": self.target, "setting": self.setting, "scans": self.scans, **self.numbers.as_dict()}

    @property
    def text(self) -> str:
        """For a terminal."""
        if isinstance(self.numbers, RegressionNumbers):
            mae = self.numbers.mae
            found = (
                f"mean absolute error {mae.value:.2f} [{mae.low:.2f}, {mae.high:.2f}]  R2 {self.numbers.r2.value:.2f}"
            )
        else:
            share = self.numbers.bacc
            found = f"balanced accuracy {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
            found += f"  ROC area {self.numbers.auc:.3f}" if self.numbers.auc == self.numbers.auc else ""
        return f"{self.target} {self.setting.ljust(8)} {found}  ({self.scans} scans)"


def target_lines(rows: Sequence[Row], targets: Sequence[str], *, seed: int) -> tuple[TargetLine, ...]:
    """Every target in every setting, from the rows of ``held_out.csv``; scans without the target count nothing."""
    lines: list[TargetLine] = []
    for number, target in enumerate(targets):
        known = [row for row in rows if row[target] not in ("", None)]
        if not known:
            continue
        resamples = draw_groups(
            [str(row["id"]) for row in known], RESAMPLES, generator=generator_for(seed, "bootstrap", number)
        )
        if target == "age":
            truth = _column(known, "age")
            settings: tuple[tuple[Setting, str], ...] = (
                ("upright", "age_predicted"), ("turned", "age_predicted_turned"), ("constant", "age_constant"),
            )  # fmt: skip
            lines += [
                TargetLine(
                    target, setting, len(known), regression_numbers(_column(known, name)[None], truth, resamples)
                )
                for setting, name in settings
            ]
        else:
            endings: tuple[tuple[Setting, str], ...] = (("upright", ""), ("turned", "_turned"))
            lines += [
                TargetLine(target, setting, len(known), _of_classes(known, target, ending, resamples))
                for setting, ending in endings
            ]
    return tuple(lines)


def _of_classes(rows: Sequence[Row], target: str, ending: str, resamples: Resamples) -> ClassNumbers:
    """Balanced accuracy and, for two classes, the ROC area of the second."""
    names = sorted({str(row[target]) for row in rows})
    answers = [str(row[f"{target}_predicted{ending}"]) for row in rows]
    known = [*names, *sorted(set(answers) - set(names))]
    if target == "sex":
        scores = _column(rows, f"male{ending}")
    else:
        sure = _column(rows, f"diagnosis_probability{ending}")
        second = torch.tensor([answer == names[-1] for answer in answers])
        scores = torch.where(second, sure, 1.0 - sure)
    predicted = torch.tensor([known.index(answer) for answer in answers])
    labels = torch.tensor([known.index(str(row[target])) for row in rows])
    return class_numbers(predicted[None], scores[None], labels, classes=len(known), resamples=resamples)


def _column(rows: Sequence[Row], name: str) -> Tensor:
    return torch.tensor([float(str(row[name])) for row in rows], dtype=torch.float64)
