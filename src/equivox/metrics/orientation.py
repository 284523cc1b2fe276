"""How far estimated orientations are from the truth, whether their confidence is honest, and what views they cover."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.geometry.point_groups import symmetric_angle
from equivox.geometry.rotations import geodesic_angle

CHANCE_RAD = math.pi / 2 + 2 / math.pi
"""Mean angle between a fixed guess and uniform rotations: 2.2074 rad, 126.5 degrees."""
NEAR_DEG = 10.0
"""An orientation within this of the truth is called right."""
VIEW_ROWS, VIEW_COLUMNS = 12, 24
"""Bins of the viewing sphere: equal steps of cos(tilt) and of rot, so equal areas."""


@dataclass(frozen=True, slots=True)
class OrientationErrors:
    """Summary of angles between poses [rad], each the arc ``2 arccos |q . q'|``.

    Parameters
    ----------
    count
        Poses compared.
    mean_rad, median_rad
        Of the angles.
    near
        Share below 10 degrees.
    """

    count: int
    mean_rad: float
    median_rad: float
    near: float

    def as_dict(self) -> dict[str, float | int]:
        """Plain values, for JSON."""
        return asdict(self)


def orientation_angles(
    truth: Float[Tensor, "pose 3 3"],
    predicted: Float[Tensor, "pose 3 3"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "pose"]:
    """Angle [rad] of each estimate from its truth, with ``group`` from the nearest of the equal poses ``truth h``.

    Examples
    --------
    >>> from equivox.geometry.point_groups import point_group
    >>> from equivox.geometry.rotations import rotation_about
    >>> one, half = torch.eye(3, dtype=torch.float64)[None], rotation_about("z", 180.0)[None]
    >>> float(orientation_angles(one, half)), float(orientation_angles(one, half, group=point_group("C2")))
    (3.14159..., 0.0)
    """
    if group is None:
        return geodesic_angle(truth.double(), predicted.double())
    return symmetric_angle(truth.double(), predicted.double(), group.double())


def summarise_angles(angles_rad: Float[Tensor, "pose"]) -> OrientationErrors:
    """Count, mean, median and the share below 10 degrees.

    Raises
    ------
    ValueError
        If there are no angles.
    """
    if not len(angles_rad):
        raise ValueError("no poses to compare")
    wide = angles_rad.double()
    return OrientationErrors(
        count=len(wide),
        mean_rad=float(wide.mean()),
        median_rad=float(wide.quantile(0.5)),
        near=float((wide < math.radians(NEAR_DEG)).double().mean()),
    )


def constant_guess_rad(sigma_rad: float) -> float:
    """Mean error of always answering the centre of ``R0 exp([v]x)``, v normal with ``sigma_rad`` per axis (small)."""
    return sigma_rad * math.sqrt(8.0 / math.pi)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Whether a confidence of p is right in a share p of the cases.

    Parameters
    ----------
    confidence, share, count
        Mean confidence, share right and number of poses of every bin that holds any.
    error
        Expected calibration error: mean of ``|confidence - share|`` weighted by counts.
    area
        Chance that a right pose has a higher confidence than a wrong one; None if all are alike.
    """

    confidence: tuple[float, ...]
    share: tuple[float, ...]
    count: tuple[int, ...]
    error: float
    area: float | None

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def reliability(confidence: Float[Tensor, "pose"], right: Tensor, *, bins: int = 10) -> Reliability:
    """Compare confidences in [0, 1] with what was right (boolean), in bins of equal width."""
    values, hits = confidence.double(), right.double()
    place = (values * bins).long().clamp(0, bins - 1)
    count = torch.bincount(place, minlength=bins)
    told = torch.bincount(place, weights=values, minlength=bins)
    met = torch.bincount(place, weights=hits, minlength=bins)
    used = count > 0
    told, met = told[used] / count[used], met[used] / count[used]
    error = float(((told - met).abs() * count[used]).sum() / len(values))
    return Reliability(
        tuple(told.tolist()), tuple(met.tolist()), tuple(count[used].tolist()), error, _ranking(values, right.bool())
    )


@dataclass(frozen=True, slots=True)
class ViewCoverage:
    """How viewing directions fill the sphere: 12 x 24 bins of equal area.

    Parameters
    ----------
    counts
        Row i: cos(tilt) from -1; column j: rot from -180 degrees.
    empty
        Bins without a view.
    fullest
        Largest count over the mean one.
    evenness
        Entropy of the counts over that of uniform ones, in [0, 1].
    """

    counts: Int[Tensor, "row column"]
    empty: int
    fullest: float
    evenness: float


def view_coverage(
    rotations: Float[Tensor, "pose 3 3"], *, rows: int = VIEW_ROWS, columns: int = VIEW_COLUMNS
) -> ViewCoverage:
    """Count the viewing directions (third row of each rotation, in the volume's frame) in bins of equal area."""
    view = rotations[:, 2].double()
    row = ((view[:, 2] + 1.0) / 2.0 * rows).long().clamp(0, rows - 1)
    angle = torch.atan2(view[:, 1], view[:, 0])
    column = ((angle + math.pi) / (2.0 * math.pi) * columns).long().clamp(0, columns - 1)
    counts = torch.bincount(row * columns + column, minlength=rows * columns)
    share = counts.double() / max(1, len(view))
    entropy = -float(torch.special.xlogy(share, share).sum())
    return ViewCoverage(
        counts=counts.reshape(rows, columns),
        empty=int((counts == 0).sum()),
        fullest=float(share.max() * len(counts)),
        evenness=entropy / math.log(len(counts)) if len(view) else 0.0,
    )


def _ranking(values: Tensor, right: Tensor) -> float | None:
    """Mann-Whitney: ties count one half."""
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return None
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    rank = last - (count.double() - 1.0) / 2.0  # mean rank of ties, from 1
    total = float(rank[place][right].sum())
    return (total - hits * (hits + 1) / 2.0) / (hits * misses)
