"""Random numbers that depend on a seed and on what they are for, never on what was drawn before.

Every sample of a training run has its own generator, made from the run's seed, a purpose, the epoch and the position
within the epoch. So a run that was cut off draws the same numbers when it goes on, and it does not matter how many
processes prepare the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_for(seed: int, purpose: str, *positions: int) -> int:
    """A seed of 63 bits for one purpose, for example ``seed_for(0, "augment", epoch, index)``.

    Examples
    --------
    >>> seed_for(0, "augment", 3, 1) == seed_for(0, "order", 3, 1)
    False
    """
    text = "/".join([str(seed), purpose, *map(str, positions)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_for(seed: int, purpose: str, *positions: int) -> torch.Generator:
    """A CPU generator that starts from :func:`seed_for`."""
    return torch.Generator().manual_seed(seed_for(seed, purpose, *positions))


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Start torch's global generators from :func:`seed_for`, and leave them as they were found.

    For what knows no generator of its own: torch's default initialisation, Lightning, dropout.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, purpose))
        yield


def draw_uniform(low: float, high: float, *, generator: torch.Generator) -> float:
    """One number, uniform between ``low`` and ``high`` (float64)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def draw_beta(first: float, second: float, *, generator: torch.Generator) -> float:
    """One number from Beta(first, second), both at most 1, by Jöhnk's rejection.

    Raises
    ------
    ValueError
        If a parameter is not in (0, 1]; the rejection would take long beyond.
    """
    if not (0.0 < first <= 1.0 and 0.0 < second <= 1.0):
        raise ValueError(f"draw_beta needs parameters in (0, 1], got {first} and {second}")
    while True:
        x = draw_uniform(0.0, 1.0, generator=generator) ** (1.0 / first)
        y = draw_uniform(0.0, 1.0, generator=generator) ** (1.0 / second)
        if 0.0 < x + y <= 1.0:
            return x / (x + y)


def draw_chance(probability: float, *, generator: torch.Generator) -> bool:
    """True with the given probability; always draws exactly one number."""
    return draw_uniform(0.0, 1.0, generator=generator) < probability
