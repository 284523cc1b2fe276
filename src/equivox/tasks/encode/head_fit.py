"""Self-supervised training of an encoder's last layers on pooled features (see :mod:`equivox.tasks.encode.pooled`).

Vectors learn by gradient descent to point the same way whatever was done to the scan (direction, condition). Invariants
need no descent: every pooled statistic is standardised and weighed by how much of its variance lies between persons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.rotations import rotation_angle
from equivox.nets.brain_code import BrainCode, align_codes, all_vectors
from equivox.nets.brain_head import BrainHead
from equivox.run.seeds import generator_for
from equivox.tasks.encode import objectives
from equivox.tasks.encode.pooled import PooledScan
from equivox.tasks.encode.train_config import HeadConfig, cosine_rate

STEPS_PER_SCAN = 15
"""Few scans are learnt sooner."""

FEWEST_SCANS = 8
"""Fewer tell nothing of what differs between persons."""


def fit_head(
    head: BrainHead,
    scans: Sequence[PooledScan],
    config: HeadConfig,
    *,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train in place.

    Parameters
    ----------
    head
        Of a :class:`equivox.nets.brain_encoder.BrainEncoder`.
    scans
        Two or more views of each.
    config
        How long and by what.
    seed
        Of batches and pairs.
    progress
        Called with the step and its loss.

    Raises
    ------
    ConfigError
        If there are fewer than 8 scans, or scans of one view.
    """
    if len(scans) < FEWEST_SCANS or len(scans[0].turns) < 2:
        raise ConfigError(f"a head needs {FEWEST_SCANS} scans of 2 views or more, got {len(scans)}; give more scans.")
    fit_invariants(head, scans)
    polar, axial, statistics, turns = stacked(scans)
    vectors = [
        parameter
        for name, parameter in head.named_parameters()
        if name.split(".")[0] in ("hidden", "crossed", "axial", "back", "polar", "signs")
    ]
    optimizer = torch.optim.AdamW(vectors, lr=config.lr, weight_decay=config.weight_decay)
    draw = generator_for(seed, "head")
    count, views = turns.shape[:2]
    steps = min(config.steps, STEPS_PER_SCAN * count)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = cosine_rate(config.lr, step, steps)
        chosen = torch.randperm(count, generator=draw)[: config.batch_size]
        pair = torch.stack([torch.randperm(views, generator=draw)[:2] for _ in chosen])
        codes = [
            head(polar[chosen, pair[:, k]], axial[chosen, pair[:, k]], statistics[chosen, pair[:, k]]) for k in range(2)
        ]
        between = turns[chosen, pair[:, 1]] @ turns[chosen, pair[:, 0]].mT
        loss = vector_loss(codes[0], codes[1], between, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step, float(loss.detach()))


def vector_loss(
    first: BrainCode, second: BrainCode, turns: Float[Tensor, "batch 3 3"], config: HeadConfig
) -> Float[Tensor, ""]:
    """Direction and condition of polar and axial vectors, weighed as the recipe says."""
    terms = config.terms
    loss = terms.get("direction", 0.0) * (
        objectives.direction_loss(all_vectors(first), all_vectors(second), turns)
        + 0.2 * objectives.direction_loss(first.axial, second.axial, turns)
    )
    loss = loss + terms.get("condition", 0.0) * objectives.condition_loss(second.polar)
    return loss.mean()


@torch.no_grad()
def fit_invariants(head: BrainHead, scans: Sequence[PooledScan]) -> None:
    """Standardise every statistic over scans and weigh it by its reliability; the hidden layer adds nothing.

    Reliability is the share of the variance that lies between persons (between their averages over views): times the
    statistic of one view it is a linear guess of what that person's views have on average. Discriminants of several
    statistics would tell persons apart better and everything else worse: from some hundred scans they fit noise.
    """
    rows = torch.stack([head.statistics(scan.polar, scan.statistics) for scan in scans]).double()
    head.settle([rows.flatten(0, 1).float()])
    person = rows.mean(1)
    within = (rows - person[:, None]).square().sum((0, 1)) / (rows.shape[0] * (rows.shape[1] - 1))
    between = person.var(0)
    reliability = between / (between + within).clamp_min(1e-30)
    outputs, inputs = head.direct.weight.shape
    head.direct.weight.zero_()
    head.direct.weight[: min(outputs, inputs)] = torch.diag(reliability).float()[:outputs]
    head.direct.bias.zero_()
    last = head.inner[-1]
    assert isinstance(last, nn.Linear)
    last.weight.zero_()
    last.bias.zero_()


def stacked(scans: Sequence[PooledScan]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(scan, view, ...): polar, axial, statistics, turns."""
    polar = torch.stack([scan.polar for scan in scans])
    axial = torch.stack([scan.axial for scan in scans])
    statistics = torch.stack([scan.statistics for scan in scans])
    return polar, axial, statistics, torch.stack([scan.turns for scan in scans]).float()


@torch.no_grad()
def pose_errors_deg(head: BrainHead, scans: Sequence[PooledScan]) -> Float[Tensor, "scan view"]:
    """Error of the rotation between the first view and every other one, in degrees."""
    polar, axial, statistics, turns = stacked(scans)
    rows = []
    for view in range(1, turns.shape[1]):
        codes = [head(polar[:, k], axial[:, k], statistics[:, k]) for k in (0, view)]
        found = align_codes(codes[0], codes[1]).rotation
        rows.append(torch.rad2deg(rotation_angle(found @ (turns[:, view] @ turns[:, 0].mT).mT)))
    return torch.stack(rows, dim=1)
