"""The other radial families of e3nn: Gaussian, cosine, Fourier and Bessel functions of the distance (steerable.md 1.7).

:class:`equivox.kernels.radial.SmoothFinite` is the fifth. With a cutoff all of them but the Gaussians vanish at both
ends, so a kernel's centre tap is zero and the layer needs its self-connection.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

OneHotKind = Literal["gaussian", "cosine", "fourier", "bessel"]


@dataclass(frozen=True, slots=True)
class SoftOneHot:
    """Functions on an interval of distances, equally spaced or of rising frequency.

    With ``d_i = (x - c_i) / h``, ``h`` the spacing of the centres, and ``t = (x - start) / (end - start)``:

    ======== =========================================================================================
    kind     ``phi_i(x)``
    ======== =========================================================================================
    gaussian ``exp(-d_i^2) / 1.12``
    cosine   ``cos(pi d_i / 2)`` for ``|d_i| < 1``
    fourier  ``sin(pi i t)`` inside the interval, ``i = 1 ...``; without cutoff ``cos(pi i t)``,
             ``i = 0 ...``; over ``sqrt(0.25 + count / 2)``
    bessel   ``sqrt(2 / c) sin(i pi t) / (x - start)``, ``c = end - start``, with its limit at ``start``
             (without cutoff also beyond ``end``)
    ======== =========================================================================================

    Parameters
    ----------
    kind
        As in the table.
    count
        Number of functions.
    start, end
        Interval of distances (mm).
    cutoff
        ``True``: centres lie inside the interval and functions vanish outside. ``False``: the first centre is at
        ``start`` and the last at ``end``.
    """

    kind: OneHotKind
    count: int
    start: float = 0.0
    end: float = 2.5
    cutoff: bool = True

    def __post_init__(self) -> None:
        needed = 1 if self.cutoff or self.kind in ("fourier", "bessel") else 2
        if self.kind not in get_args(OneHotKind) or self.count < needed or not self.end > self.start:
            raise ConfigError(
                f"a family of {self.count} {self.kind} functions on [{self.start}, {self.end}] mm does not exist; use "
                f"at least {needed} of kind {', '.join(get_args(OneHotKind))} on an interval of positive length."
            )

    def values(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "count *points"]:
        """Every function at every distance."""
        if self.kind in ("gaussian", "cosine"):
            steps = self._steps(distance)
            if self.kind == "gaussian":
                return torch.exp(-steps.square()) / 1.12
            return torch.cos(0.5 * math.pi * steps) * (steps.abs() < 1)
        length = self.end - self.start
        shifted = distance - self.start
        inside = (shifted > 0) & (shifted < length)
        first = 0 if self.kind == "fourier" and not self.cutoff else 1
        numbers = torch.arange(first, first + self.count, dtype=distance.dtype, device=distance.device)
        numbers = numbers.view(-1, *[1] * distance.ndim)
        if self.kind == "fourier":
            waves = torch.sin(math.pi * numbers * shifted / length) * inside
            if not self.cutoff:
                waves = torch.cos(math.pi * numbers * shifted / length)
            return waves / math.sqrt(0.25 + self.count / 2)
        # sin(a x) / x = a sinc(a x / pi), which has its limit a at 0
        waves = math.sqrt(2 / length) * (numbers * math.pi / length) * torch.sinc(numbers * shifted / length)
        return waves * ((shifted >= 0) & (shifted < length)) if self.cutoff else waves

    def admits(self, index: int, degree: int) -> bool:
        """Every function carries every degree."""
        return True

    def _steps(self, distance: Tensor) -> Tensor:
        """``d_i`` of every centre."""
        intervals, first = (self.count + 1, 1) if self.cutoff else (self.count - 1, 0)
        spacing = (self.end - self.start) / intervals
        centers = [self.start + (first + index) * spacing for index in range(self.count)]
        return torch.stack([(distance - center) / spacing for center in centers])
