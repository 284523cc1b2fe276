"""From a checkpoint to a model folder: honest confidence, card, certificate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import equivox
from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import rotation_about
from equivox.metrics.orientation import orientation_angles, reliability, summarise_angles
from equivox.nets.orientation import OrientationNet
from equivox.nets.orientation_search import CONFIDENCE_DEG, Calibration, best_answers, hypotheses_of
from equivox.nn.pose_heads import PoseHypotheses
from equivox.run.sampling import Samples, group_samples
from equivox.run.training import Fitted, network_weights
from equivox.run.training_folder import LICENSE_TEXT
from equivox.tasks.orient.config import NETWORK, OrientTraining
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.registry import build_network

TEMPERATURES = tuple(0.5 * 1.15**step for step in range(20))
"""What scores may be divided by: 0.5 to 7."""
TOLERANCE = 1e-3
PORTION = 100


def write_model(
    path: Path,
    settings: OrientTraining,
    fitted: Fitted,
    validation: Samples,
    *,
    source: str,
    counts: Mapping[str, int],
    seed: int,
) -> tuple[ModelFolder, dict[str, Any]]:
    """Write the model folder of a training and return it with what validation says of it.

    The weights are those of the last epoch: the rate has fallen to a hundredth by then.
    """
    weights = network_weights(fitted.last)
    network = build_network(settings.network())
    assert isinstance(network, OrientationNet)
    network.load_state_dict(weights)
    network.eval()
    measured = measure(network, validation, settings)
    name = path.resolve().parent.name
    folder = write_model_folder(
        path,
        name=name,
        task="orient",
        behaviour="equivox",
        networks={NETWORK: settings.network()},
        weights={NETWORK: weights},
        card=_card(name, settings, source, counts, measured),
        certificate=certify_orientation(network),
        license_text=LICENSE_TEXT,
        extra={
            "input": settings.picture.as_dict(),
            "output": {**measured["calibration"], "confidence_within_deg": CONFIDENCE_DEG},
            "settings": {"source": source},
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}",
                "training": settings.as_dict(),
                "pictures": dict(counts),
                "validation": measured,
                "seed": seed,
                "epochs": fitted.epochs,
            },
            "license": "unknown",
        },
        overwrite=True,
    )
    return folder, measured


@torch.inference_mode()
def measure(network: OrientationNet, validation: Samples, settings: OrientTraining) -> dict[str, Any]:
    """Errors on the validation pictures, and the calibration at which confidence fits them best."""
    group = point_group(settings.picture.symmetry)
    found, truth = [], []
    for start in range(0, len(validation), PORTION):
        places = range(start, min(start + PORTION, len(validation)))
        for batch in group_samples([validation.sample(0, place) for place in places]):
            found.append(hypotheses_of(network, batch["picture"]))
            truth.append(batch["rotation"])
    poses = torch.cat(truth)
    whole = PoseHypotheses(
        torch.cat([one.logits for one in found]),
        torch.cat([one.rotations for one in found]),
        torch.cat([one.kappa for one in found]),
    )
    members = None if len(group) == 1 else group.float()
    best, least, answers = Calibration(), math.inf, best_answers(whole, group=members)
    for temperature in TEMPERATURES:
        tempered = PoseHypotheses(whole.logits / temperature, whole.rotations, whole.kappa)
        tried = best_answers(tempered, group=members)
        right = torch.rad2deg(orientation_angles(poses, tried.rotations[:, 0], group=members)) <= CONFIDENCE_DEG
        slope, offset, cost = fit_odds(tried.confidence[:, 0], right)
        if cost < least:
            best, least, answers = Calibration(temperature, slope, offset), cost, tried
    angles = orientation_angles(poses, answers.rotations[:, 0], group=members)
    right = torch.rad2deg(angles) <= CONFIDENCE_DEG
    fit = reliability(best.honest(answers.confidence[:, 0]), right)
    return {
        "calibration": asdict(best), **summarise_angles(angles).as_dict(), "calibration_error": fit.error,
        "ranking": fit.area,
    }  # fmt: skip


def fit_odds(confidence: Float[Tensor, "picture"], right: Bool[Tensor, "picture"]) -> tuple[float, float, float]:
    """Slope and offset of the log odds that explain best what was right (Newton's method), and their cross-entropy.

    A weak prior holds them near 1 and 0 where there are few pictures, or none of one kind.
    """
    odds = torch.logit(confidence.double().clamp(1e-4, 1.0 - 1e-4))
    inputs = torch.stack([odds, torch.ones_like(odds)], dim=1)
    target, prior, at = right.double(), torch.tensor([1.0, 0.0]).double(), torch.tensor([1.0, 0.0]).double()
    for _ in range(25):
        told = torch.sigmoid(inputs @ at)
        slope = inputs.mT @ (told - target) + (at - prior)
        bend = inputs.mT @ (inputs * (told * (1.0 - told))[:, None]) + torch.eye(2, dtype=torch.float64)
        at = at - torch.linalg.solve(bend, slope).clamp(-1.0, 1.0)
        at = torch.stack([at[0].clamp(0.1, 10.0), at[1]])
    cost = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ at, target)
    return float(at[0]), float(at[1]), float(cost)


@torch.inference_mode()
def certify_orientation(network: OrientationNet) -> dict[str, Any]:
    """Answers to noise turned by a quarter and mirrored, against the turned answers; coarse and fine look, float32."""
    draw = torch.Generator().manual_seed(0)
    picture = torch.randn(4, network.channels_in, network.side, network.side, generator=draw)
    before = network.look_coarse(picture)
    errors = {}
    turns = {"quarter turn": rotation_about("z", 90.0), "mirror of x": rotation_about("y", 180.0)}
    for name, element in turns.items():
        moved = picture.rot90(-1, dims=(-2, -1)) if name == "quarter turn" else picture.flip(-1)
        after = network.look_coarse(moved)
        if before.rotations.shape[1] == 1:
            errors[name] = float((after.rotations - element.float() @ before.rotations).abs().max())
            continue
        order = network.grid.permutation(element)
        error = float((after.rotations[:, order] - element.float() @ before.rotations).abs().max())
        spread = before.logits.std().clamp_min(1e-6)
        error = max(error, float((after.logits[:, order] - before.logits).abs().max() / spread))
        if network.fine is not None:
            fine = network.look_fine(picture, before.rotations[:, :4])
            turned = network.look_fine(moved, element.float() @ before.rotations[:, :4])
            error = max(error, float((turned.rotations - element.float() @ fine.rotations).abs().max()))
        errors[name] = error
    return {
        "equivox_version": equivox.__version__,
        "input": f"white noise, {network.side} pixels a side, float32",
        "network": NETWORK,
        "largest_error": errors,
        "tolerance": TOLERANCE,
        "rotations_hold": max(errors.values()) <= TOLERANCE,
        "generic_angles": "not measured: needs data",
    }


def _card(
    name: str, settings: OrientTraining, source: str, counts: Mapping[str, int], measured: Mapping[str, Any]
) -> str:
    picture, simulation = settings.picture, settings.simulation
    noise = "none" if simulation.snr is None else f"signal to noise {simulation.snr[0]:g} to {simulation.snr[1]:g}"
    defocus = simulation.defocus_angstrom
    transfer = "none" if defocus is None else f"underfocus {defocus[0]:g} to {defocus[1]:g} Å"
    return f"""---
license: unknown
tags: [cryo-EM, orientation, equivariance]
---
# {name}

Orientations of single particles, trained with equivox {equivox.__version__} on {source}.

## Intended use
Research on pictures of this particle. It answers for a picture of anything else too: look at the confidence.

## Input
Pictures of {picture.side} pixels a side of {picture.pixel_size_angstrom:g} Å, the particle light, transfer
`{picture.transfer}`, symmetry {picture.symmetry}. `equivox orient predict` brings particles of any box to these.

## Training
{counts["training"]} pictures per epoch, {settings.epochs} epochs, {counts["validation"]} for validation; simulated
noise: {noise}; contrast transfer: {transfer}. Every setting is in `config.json`.

## Measured on its validation pictures
Mean error {measured["mean_rad"]:.4f} rad, median {measured["median_rad"]:.4f} rad, {measured["near"]:.1%} within 10
degrees; calibration error of the confidence {measured["calibration_error"]:.3f}.

## Limits
Simulated pictures are simpler than real ones; errors on other data are not measured: use `equivox orient evaluate`.
"""
