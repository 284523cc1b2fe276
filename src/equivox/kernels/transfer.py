"""How far a kernel basis is from turning with its input, frequency by frequency.

A convolution with kernel ``k`` is equivariant on plane waves of frequency ``w`` iff its transfer function
``K(w) = sum_x k(x) exp(-i w x)`` obeys ``K(R w) = D(R) K(w)``, that is, iff on each sphere ``|w| = const`` it is a
multiple of the harmonics of its degree. The error is what is left of ``K`` after its best multiple is taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.harmonics import spherical_harmonics

POLAR_NODES, AZIMUTHS = 24, 48


@dataclass(frozen=True)
class TransferError:
    """Equivariance error of some functions of one degree at several frequencies.

    Parameters
    ----------
    frequencies
        ``|w|``, in radians per unit of the positions.
    error
        Root mean square relative error of a combination with independent random weights; 0 is exact, 1 is an output
        that has nothing to do with the input's rotation. Two outputs that should be equal differ by ``sqrt(2)`` of it.
    error_each, amplitude_each
        The relative error, and the root mean square of ``|K|`` over the sphere, of each function.
    """

    frequencies: Float[Tensor, " frequency"]
    error: Float[Tensor, " frequency"]
    error_each: Float[Tensor, "functions frequency"]
    amplitude_each: Float[Tensor, "functions frequency"]


def transfer_error(
    functions: Float[Tensor, "functions dimension taps"],
    positions: Float[Tensor, "taps 3"],
    frequencies: Sequence[float | int],
) -> TransferError:
    """Measure the equivariance error of kernel functions of one degree.

    Parameters
    ----------
    functions
        Kernel functions with ``dimension = 2 J + 1`` components, of any family.
    positions
        Tap positions (x, y, z), for instance in voxels.
    frequencies
        ``|w|`` in radians per unit of the positions: on positions in voxels, pi is the finest pattern of a grid.

    Notes
    -----
    Averages over the sphere use 24 Gauss-Legendre nodes by 48 azimuths, exact for harmonics up to degree 47.

    Examples
    --------
    >>> taps = torch.tensor([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
    >>> transfer_error(taps.mT[None], taps, [0.1, 1.0]).error  # central differences: off by |w|^2 at first
    tensor([0.0004, 0.0456], dtype=torch.float64)
    """
    kernel, taps = (tensor.detach().cpu().double().numpy() for tensor in (functions, positions))
    residual, full = sphere_products(kernel, taps, frequencies)
    wrong, power = np.einsum("waa->aw", residual), np.einsum("waa->aw", full)
    floor = 1e-300
    return TransferError(
        frequencies=torch.tensor([float(w) for w in frequencies], dtype=torch.float64, device="cpu"),
        error=torch.from_numpy(np.sqrt(wrong.sum(axis=0) / np.maximum(power.sum(axis=0), floor))),
        error_each=torch.from_numpy(np.sqrt(wrong / np.maximum(power, floor))),
        amplitude_each=torch.from_numpy(np.sqrt(power)),
    )


def combine_errors(parts: Sequence[TransferError], paths: Sequence[float | int]) -> Float[Tensor, " frequency"]:
    """Error of a whole layer: parts of several degrees, each on a number of paths with independent random weights.

    A path has the mean power of its degree's functions, however many there are. A layer between the degrees 0, 1 and 2
    has 3, 6, 6 and 3 paths of filter degree 0, 1, 2 and 3 (and one of degree 4).
    """
    power = [count * (part.amplitude_each**2).mean(0) for part, count in zip(parts, paths, strict=True)]
    wrong = [part.error**2 * share for part, share in zip(parts, power, strict=True)]
    return torch.sqrt(torch.stack(wrong).sum(0) / torch.stack(power).sum(0))


def sphere_products(
    functions: Float[np.ndarray, "functions dimension taps"],
    positions: Float[np.ndarray, "taps 3"],
    frequencies: Sequence[float | int],
) -> tuple[Float[np.ndarray, "frequency functions functions"], Float[np.ndarray, "frequency functions functions"]]:
    """Mean products over spheres of frequencies, of what is wrong in the transfer functions and of all of them.

    Returns
    -------
    ``<e_a . e_b>`` and ``<K_a . K_b>`` (real parts), with ``e = K - c Y`` and ``c`` the best multiple on each sphere.
    """
    count, dimension, taps = functions.shape
    nodes, weights = _sphere()
    harmonics = spherical_harmonics(dimension // 2, torch.from_numpy(nodes)).numpy().T  # (dimension, nodes)
    flat = functions.reshape(-1, taps)
    residual, full = [], []
    for frequency in frequencies:
        phase = float(frequency) * (positions @ nodes.T)
        wrong, power = np.zeros((count, count)), np.zeros((count, count))
        for wave in (np.cos(phase), np.sin(phase)):
            transfer = (flat @ wave).reshape(count, dimension, -1)
            gain = np.einsum("amp,mp,p->a", transfer, harmonics, weights) / dimension
            error = transfer - gain[:, None, None] * harmonics
            for total, field in ((wrong, error), (power, transfer)):
                weighted = (field * np.sqrt(weights)).reshape(count, -1)
                total += weighted @ weighted.T
        residual.append(wrong)
        full.append(power)
    return np.array(residual), np.array(full)


@lru_cache(maxsize=1)
def _sphere() -> tuple[np.ndarray, np.ndarray]:
    """Nodes (unit vectors) and weights (sum 1) of the quadrature on the sphere."""
    cosine, weight = np.polynomial.legendre.leggauss(POLAR_NODES)
    azimuth = 2 * np.pi * np.arange(AZIMUTHS) / AZIMUTHS
    sine = np.sqrt(1 - cosine**2)
    nodes = np.stack(
        [np.outer(sine, np.cos(azimuth)), np.outer(sine, np.sin(azimuth)), np.outer(cosine, np.ones(AZIMUTHS))], axis=-1
    )
    return nodes.reshape(-1, 3), np.repeat(weight / (2 * AZIMUTHS), AZIMUTHS)
