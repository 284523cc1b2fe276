"""From the best checkpoint to a model folder with its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

import equivox
from equivox.errors import ConfigError
from equivox.run.training import Fitted, network_weights
from equivox.run.training_folder import LICENSE_TEXT
from equivox.tasks.pose.train_config import RotateTraining, SegmentTraining
from equivox.tasks.pose.train_courses import rotate_fields, segment_fields
from equivox.weights.certificate import certify_cube
from equivox.weights.folder import ModelFolder, read_weights, write_model_folder
from equivox.weights.registry import build_network


def write_model(
    path: Path,
    network: Literal["segment", "rotate"],
    settings: SegmentTraining | RotateTraining,
    fitted: Fitted,
    *,
    monitor: str,
    data: Mapping[str, list[str]],
    other: ModelFolder | None,
    seed: int,
) -> ModelFolder:
    """Write the model folder of a training; an earlier one of the same training is replaced.

    Parameters
    ----------
    path
        Where it shall be.
    network
        Which one was trained.
    settings, fitted, monitor, data, seed
        What was done, for the configuration and the card.
    other
        Folder that the other network and its settings are taken from.

    Raises
    ------
    ConfigError
        If the two networks do not work on the same voxel size.
    """
    fields: dict[str, dict[str, object]] = {}
    weights: dict[str, dict[str, Tensor]] = {}
    contract: dict[str, Any] = {"frame": "voxel", "voxel_size_mm": settings.voxel_size_mm}
    contract["intensity"] = "rescaled to [0, 1]"
    own: dict[str, Any] = {"thresholds": []}
    if other is not None:
        theirs = "rotate" if network == "segment" else "segment"
        fields[theirs] = dict(other.config["networks"][theirs])
        weights[theirs] = read_weights(other)[theirs]
        contract, own = {**other.config.get("input", {})}, {**other.config.get("settings", {})}
        _require_same_grid(other, contract, settings)
    if isinstance(settings, SegmentTraining):
        fields["segment"] = segment_fields(settings)
        contract["size"] = settings.crop_size_voxels
        own["thresholds"] = []  # the published ones, sized by the classes
    else:
        fields["rotate"] = rotate_fields(settings)
        own["rotate_size"] = settings.image_size_voxels
    weights[network] = network_weights(fitted.best)
    return write_model_folder(
        path,
        name=path.resolve().parent.name,
        task="pose",
        behaviour="published" if settings.preset == "published" else "mended",
        networks=fields,
        weights=weights,
        card=_card(path.resolve().parent.name, network, settings, fitted, monitor, data, other),
        certificate=_certificate(fields, weights),
        license_text=LICENSE_TEXT,
        extra={
            "input": contract,
            "output": {"frame": "head", "axes": "as in the annotations of the training data"},
            "settings": own,
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}",
                "network": network,
                "training": settings.as_dict(),
                "seed": seed,
                "epoch": fitted.best_epoch,
                monitor: fitted.best_value,
                "volumes": {name: len(ids) for name, ids in data.items()},
                **({"joined_from": {"name": other.name, "sha256": other.sha256}} if other else {}),
            },
            "license": "unknown",
        },
        overwrite=True,
    )


def _require_same_grid(
    other: ModelFolder, contract: Mapping[str, Any], settings: SegmentTraining | RotateTraining
) -> None:
    theirs = float(contract.get("voxel_size_mm", settings.voxel_size_mm))
    if theirs != settings.voxel_size_mm:
        raise ConfigError(
            f"{other.path} works at {theirs:g} mm, this training at {settings.voxel_size_mm:g} mm; "
            "join two networks of one voxel size."
        )


def _certificate(
    fields: Mapping[str, Mapping[str, object]], weights: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Any]:
    """Equivariance of the rotation network; a U-Net promises none."""
    if "rotate" not in fields:
        return {"equivox_version": equivox.__version__, "network": "segment", "equivariance": "none: a plain U-Net"}
    rotate = build_network(fields["rotate"])
    rotate.load_state_dict(dict(weights["rotate"]))
    return certify_cube(rotate.eval())


def _card(
    name: str,
    network: str,
    settings: SegmentTraining | RotateTraining,
    fitted: Fitted,
    monitor: str,
    data: Mapping[str, list[str]],
    other: ModelFolder | None,
) -> str:
    """The README: what was trained on what, how well, and what is not known."""
    alone = f"It holds the network `{network}` alone: join the other one with `equivox pose train ... --join`."
    joined = f"The other network comes from {other.name} (sha256 {other.sha256[:12]})." if other else alone
    return f"""---
license: unknown
tags: [pose-estimation, equivariance, mri]
---
# {name}

Network `{network}` of E(3)-Pose, trained with equivox {equivox.__version__}, preset {settings.preset}. {joined}

## Intended use
Research on the pose of heads, or of the object that was annotated. Not a medical device; not for clinical decisions.

## Training
{len(data["training"])} volumes for training, {len(data["validation"])} for validation; {fitted.epochs} epochs; the
weights are those of epoch {fitted.best_epoch}, where `{monitor}` was smallest: {fitted.best_value:.4g} (on the
validation volumes, which chose it: expect worse on others). Every setting is in `config.json`.

## Input and output
Volumes are worked on at {settings.voxel_size_mm:g} mm. The axes of the head are those of the annotations.

## Limits
Accuracy on other data is not measured: use `equivox pose evaluate` on volumes that took no part in the training.
"""
