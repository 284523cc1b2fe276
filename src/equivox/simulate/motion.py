"""Seeded motion of a fetal head: a slow drift, and bursts in which it turns and shifts within seconds."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import rotation_from_vector
from equivox.geometry.trajectories import Trajectory

STEP_S = 0.5
DRIFT_DEG, DRIFT_MM = 3.0, 1.5
"""Standard deviation of the drift, which forgets itself within :data:`DRIFT_MEMORY_S`."""
DRIFT_MEMORY_S = 30.0
BURST_MM_PER_DEG = 0.25
"""Shift that goes with a burst's turn."""
BURST_SECONDS = (1.0, 4.0)


def sample_trajectory(
    duration_s: float,
    *,
    generator: torch.Generator,
    bursts_per_minute: float = 2.0,
    burst_deg: float = 15.0,
) -> Trajectory:
    """Draw one trajectory from 0 s on, at rest (identity) at its start.

    Parameters
    ----------
    duration_s
        It ends at or just after this time.
    generator
        Draws everything.
    bursts_per_minute
        Mean number of bursts (Poisson).
    burst_deg
        Scale of a burst's turn: half-normal, about an axis uniform on the sphere; it lasts 1 to 4 s.
    """
    count = max(2, math.ceil(duration_s / STEP_S) + 1)
    times = torch.arange(count, dtype=torch.float64) * STEP_S
    vectors = _drift(count, DRIFT_DEG, generator) + 0.0
    shifts = _drift(count, DRIFT_MM, generator)
    arrival = 0.0
    while bursts_per_minute > 0:
        arrival += -math.log(1.0 - float(torch.rand((), generator=generator, dtype=torch.float64)))
        start = arrival * 60.0 / bursts_per_minute
        if start > duration_s:
            break
        low, high = BURST_SECONDS
        lasts = low + (high - low) * float(torch.rand((), generator=generator))
        ramp = ((times - start) / lasts).clamp(0.0, 1.0)
        ramp = ramp * ramp * (3 - 2 * ramp)
        size = abs(float(torch.randn((), generator=generator))) * burst_deg
        for field, scale in ((vectors, size), (shifts, size * BURST_MM_PER_DEG)):
            axis = torch.randn(3, generator=generator, dtype=torch.float64)
            field += ramp[:, None] * scale * axis / axis.norm()
    return Trajectory(times, rotation_from_vector(torch.deg2rad(vectors)), shifts)


def _drift(count: int, size: float, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """A stationary, smoothed random walk less its first value."""
    keep = math.exp(-STEP_S / DRIFT_MEMORY_S)
    values = torch.zeros(count, 3, dtype=torch.float64)
    now = torch.randn(3, generator=generator, dtype=torch.float64) * size
    for index in range(count):
        values[index] = now
        push = torch.randn(3, generator=generator, dtype=torch.float64) * size
        now = keep * now + math.sqrt(1 - keep * keep) * push
    return values - values[0]
