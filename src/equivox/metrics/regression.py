"""How far numbers are from the truth: mean absolute error, root mean square, R², correlation, bias; with intervals.

Every interval is a 95 % bootstrap over whole groups (people).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.metrics.grouped import Measured, Resamples, measure, weighted_mean


@dataclass(frozen=True, slots=True)
class RegressionNumbers:
    """Errors of one predictor.

    Parameters
    ----------
    mae
        Mean absolute error with its interval.
    mae_sd
        SD of the mean absolute error over repetitions of the cross-validation; NaN for one.
    rmse, r2, r
        Root mean square error, share of variance explained, Pearson's correlation.
    bias_slope
        Slope of the error (predicted - true) on the truth: -1 predicts the mean, 0 is without regression to it.
    """

    mae: Measured
    mae_sd: float
    rmse: float
    r2: Measured
    r: float
    bias_slope: float

    def as_dict(self) -> dict[str, object]:
        """For JSON, NaN as None."""
        numbers = {"mae_sd": self.mae_sd, "rmse": self.rmse, "r": self.r, "bias_slope": self.bias_slope}
        plain = {name: round(value, 5) if value == value else None for name, value in numbers.items()}
        return {"mae": self.mae.as_dict(), "r2": self.r2.as_dict(), **plain}


def regression_numbers(
    predicted: Float[Tensor, "repeat item"], truth: Float[Tensor, " item"], resamples: Resamples
) -> RegressionNumbers:
    """Numbers of a predictor from its held-out predictions in every repetition.

    Errors are averaged over repetitions per item before the bootstrap, so an item counts once.
    """
    truth = truth.double()
    errors = predicted.double() - truth
    each = errors.abs().mean(dim=1)
    mean = predicted.double().mean(dim=0)
    squares = errors.square().mean(dim=0)
    constant = float(mean.std()) < 1e-12 or float(truth.std()) < 1e-12

    def explained(values: Tensor, weights: Tensor) -> Tensor:
        level = weighted_mean(truth, weights)
        spread = weighted_mean(truth.square(), weights) - level.square()
        return 1.0 - weighted_mean(values, weights) / spread.clamp_min(1e-300)

    return RegressionNumbers(
        mae=measure(errors.abs().mean(dim=0), weighted_mean, resamples),
        mae_sd=float(each.std()) if len(each) > 1 else float("nan"),
        rmse=float(squares.mean().sqrt()),
        r2=measure(squares, explained, resamples),
        r=float("nan") if constant else float(torch.corrcoef(torch.stack([mean, truth]))[0, 1]),
        bias_slope=_slope(truth, mean - truth),
    )


def paired_difference(
    first: Float[Tensor, "repeat item"],
    second: Float[Tensor, "repeat item"],
    truth: Float[Tensor, " item"],
    resamples: Resamples,
) -> Measured:
    """Mean absolute error of ``first`` minus that of ``second`` on the same items; below 0 the first is better."""
    off = [(part.double() - truth.double()).abs().mean(dim=0) for part in (first, second)]
    return measure(off[0] - off[1], weighted_mean, resamples)


def _slope(x: Tensor, y: Tensor) -> float:
    """Least-squares slope of y on x; NaN where x does not vary."""
    centred = x - x.mean()
    spread = float(centred.square().sum())
    return float((centred * y).sum()) / spread if spread > 0 else float("nan")
