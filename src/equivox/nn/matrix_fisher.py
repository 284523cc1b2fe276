"""Mixtures of isotropic matrix-Fisher distributions on SO(3): likelihood, mode, mean, spread.

The density with respect to the Haar measure of mass 1 is ``p(Q | M, kappa) = exp(kappa tr(M^T Q)) / c(kappa)``, where
``tr = 1 + 2 cos d`` and ``c(kappa) = e^kappa (I0(2 kappa) - I1(2 kappa))``. Near its mode it is ``exp(-kappa d^2)``,
so the variance about each axis is ``1 / (2 kappa)`` rad². Everything is a pure function; ``log c - 3 kappa`` is kept
apart from ``3 kappa``, so that float32 does for any ``kappa``.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import chordal_mean, geodesic_angle

_LARGE = 300.0
"""Above, the asymptotic series is exact to 1e-9; below, the Bessel functions in float64 are."""


def log_normaliser_excess(kappa: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """``log c(kappa) - 3 kappa`` for ``kappa >= 0``, to 1e-8; in the dtype given, computed in float64.

    Examples
    --------
    >>> log_normaliser_excess(torch.tensor(0.0))
    tensor(0.)
    """
    wide = kappa.double()
    small = wide.clamp(max=_LARGE)
    bessel = torch.log(torch.special.i0e(2.0 * small) - torch.special.i1e(2.0 * small))
    large = wide.clamp_min(_LARGE)
    inverse = 1.0 / large
    series = torch.log1p(inverse * (3.0 / 16.0 + inverse * (45.0 / 512.0 + inverse * (525.0 / 8192.0))))
    asymptotic = -0.5 * torch.log(4.0 * math.pi * large) - torch.log(4.0 * large) + series
    return torch.where(wide > _LARGE, asymptotic, bessel).to(kappa.dtype)


def log_density(
    targets: Float[Tensor, "*batch 3 3"], modes: Float[Tensor, "*batch 3 3"], kappa: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """``log p(Q | M, kappa)`` of each rotation under its own distribution; 0 is the density of the uniform one."""
    trace = (modes * targets).sum((-2, -1))
    return kappa * (trace - 3.0) - log_normaliser_excess(kappa)


def mixture_log_density(
    logits: Float[Tensor, "batch component"],
    modes: Float[Tensor, "batch component 3 3"],
    kappa: Float[Tensor, "batch component"],
    targets: Float[Tensor, "batch 3 3"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch"]:
    """Log likelihood of one rotation per item under its mixture; its negative is the loss.

    Parameters
    ----------
    logits
        Unnormalised log weights.
    modes, kappa
        Of the components.
    targets
        Rotations ``Q``.
    group
        Symmetry of the particle: the density is averaged over ``Q h``, so it does not ask which of the equal poses
        was meant.
    """
    variants = targets[:, None] if group is None else targets[:, None] @ group.to(targets)  # (batch, element, 3, 3)
    trace = torch.einsum("bcij,beij->bce", modes, variants)
    each = kappa[..., None] * (trace - 3.0) - log_normaliser_excess(kappa)[..., None]
    component = torch.logsumexp(each, dim=-1) - math.log(variants.shape[1])
    return torch.logsumexp(torch.log_softmax(logits, dim=-1) + component, dim=-1)


def mixture_mode(
    logits: Float[Tensor, "batch component"],
    modes: Float[Tensor, "batch component 3 3"],
    kappa: Float[Tensor, "batch component"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch component"]:
    """Log density of the mixture at the mode of each component: the largest is the best point estimate.

    Components that agree with one another raise each other; a lone sharp one need not win.
    """
    count = modes.shape[1]
    variants = modes[:, None] if group is None else modes[:, None] @ group.to(modes)[None, :, None]
    trace = torch.einsum("bcij,beqij->bceq", modes, variants)  # at mode q, from component c
    each = kappa[:, :, None, None] * (trace - 3.0) - log_normaliser_excess(kappa)[:, :, None, None]
    component = torch.logsumexp(each, dim=2) - math.log(variants.shape[1])
    found = torch.logsumexp(torch.log_softmax(logits, dim=-1)[..., None] + component, dim=1)
    return found.reshape(-1, count)


def refined_mean(
    logits: Float[Tensor, "batch component"],
    modes: Float[Tensor, "batch component 3 3"],
    kappa: Float[Tensor, "batch component"],
    start: Float[Tensor, "batch 3 3"],
    *,
    steps: int = 3,
    within_deg: float = 30.0,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch 3 3"]:
    """Weighted Procrustes mean of the components around ``start``, repeated about its own result.

    A component counts with its weight times its density at the present estimate, if it lies within ``within_deg``; of a
    symmetric particle that variant of each component is taken which lies nearest. Where no component is near, the
    estimate stays.
    """
    weights = torch.log_softmax(logits, dim=-1)
    excess = log_normaliser_excess(kappa)
    estimate = start
    for _ in range(steps):
        variants = modes[:, :, None] if group is None else modes[:, :, None] @ group.to(modes)
        trace = torch.einsum("bij,bceij->bce", estimate, variants)
        nearest = trace.argmax(-1)
        chosen = torch.take_along_dim(variants, nearest[..., None, None, None], dim=2).squeeze(2)
        angle = geodesic_angle(chosen, estimate[:, None].expand_as(chosen))
        level = weights + kappa * (trace.amax(-1) - 3.0) - excess
        level = level.masked_fill(angle > math.radians(within_deg), -math.inf)
        peak = level.amax(-1, keepdim=True)
        share = torch.where(peak.isfinite(), (level - peak).exp(), torch.zeros_like(level)) * kappa
        mean = chordal_mean(chosen, share)
        estimate = torch.where((share.sum(-1) > 0)[:, None, None], mean, estimate)
    return estimate


def mixture_entropy(
    logits: Float[Tensor, "batch component"],
    modes: Float[Tensor, "batch component 3 3"],
    kappa: Float[Tensor, "batch component"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch"]:
    """Entropy [nat] against the Haar measure: 0 knows nothing, -10 knows the pose to about 3 degrees.

    The log density of the mixture is taken at each mode and lowered by what it falls off on average around one,
    ``kappa (3 - E tr)``: exact for one component, and for components that are equal or far apart.
    """
    share = torch.softmax(logits, dim=-1)
    at_modes = mixture_mode(logits, modes, kappa, group=group)
    return (share * (mean_fall(kappa) - at_modes)).sum(-1)


def mean_fall(kappa: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """``kappa (3 - E tr(M^T Q))``, from 0 at ``kappa = 0`` to 3/2: how far log p lies below its top on average."""
    wide = kappa.double()
    small = wide.clamp(max=_LARGE)
    zeroth, first = torch.special.i0e(2.0 * small), torch.special.i1e(2.0 * small)
    # d log c / d kappa = 1 + 2 (I1 - I1') / (I0 - I1), I1'(x) = I0 - I1 / x
    ratio = torch.where(small > 1e-6, first / (2.0 * small).clamp_min(1e-6), torch.full_like(small, 0.5))
    slope = 1.0 + 2.0 * (first - zeroth + ratio) / (zeroth - first)
    exact = small * (3.0 - slope)
    large = wide.clamp_min(_LARGE)
    return torch.where(wide > _LARGE, 1.5 + 3.0 / (16.0 * large), exact).to(kappa.dtype)


def mass_within(
    logits: Float[Tensor, "batch component"],
    modes: Float[Tensor, "batch component 3 3"],
    kappa: Float[Tensor, "batch component"],
    center: Float[Tensor, "batch 3 3"],
    angle_deg: float,
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch"]:
    """Probability that the rotation lies within ``angle_deg`` of ``center``, in [0, 1].

    Each component is taken as a normal distribution of variance ``1 / (2 kappa)`` per axis in the tangent space, whose
    mass in an off-centre ball has a closed form: within 0.01 of the truth for ``kappa >= 10`` and angles up to 30
    degrees.
    """
    variants = modes[:, :, None] if group is None else modes[:, :, None] @ group.to(modes)
    offset = geodesic_angle(variants, center[:, None, None].expand_as(variants)).amin(-1)
    radius = math.radians(angle_deg)
    sigma = (0.5 / kappa.clamp_min(1e-3)).sqrt()
    mean = (offset / sigma).clamp_min(1e-3)
    limit = radius / sigma
    near, far = limit - mean, limit + mean
    ball = 0.5 * (torch.erf(near / math.sqrt(2.0)) + torch.erf(far / math.sqrt(2.0)))
    edge = (torch.exp(-0.5 * near**2) - torch.exp(-0.5 * far**2)) / (mean * math.sqrt(2.0 * math.pi))
    inside = (ball - edge).clamp(0.0, 1.0)
    return (torch.softmax(logits, dim=-1) * inside).sum(-1).clamp(0.0, 1.0)
