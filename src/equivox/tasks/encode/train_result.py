"""From a training's checkpoint to a model folder with its card and its certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import equivox
from equivox.run.training import Fitted, network_weights
from equivox.run.training_folder import LICENSE_TEXT
from equivox.tasks.encode.train_certificate import certify_encoder
from equivox.tasks.encode.train_config import FinetuneConfig, PretrainConfig
from equivox.tasks.encode.train_course import TargetScale
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.registry import build_network

ENCODER, HEADS = "encoder", "heads"


def write_pretrained(
    path: Path,
    config: PretrainConfig,
    fitted: Fitted,
    *,
    counts: Mapping[str, int],
    seed: int,
    data: Mapping[str, Any],
    settle: Callable[[nn.Module], None] | None = None,
) -> ModelFolder:
    """The encoder alone, from the best epoch; an earlier folder of the same training is replaced.

    Where the objective reads fields only, no layer has learnt from the code's invariants: ``settle`` then standardises
    them as they have become.
    """
    weights = _below(network_weights(fitted.best), ENCODER)
    fields = config.network_fields()
    encoder = _built(fields, weights)
    if settle is not None and set(config.terms) == {"erased"}:
        settle(encoder)
        weights = {name: one.detach().clone() for name, one in encoder.state_dict().items()}
    name = path.resolve().parent.name
    return write_model_folder(
        path,
        name=name,
        task="encode",
        behaviour="equivox",
        networks={ENCODER: fields},
        weights={ENCODER: weights},
        card=_pretrained_card(name, config, fitted, counts),
        certificate=certify_encoder(encoder, config.side),
        license_text=LICENSE_TEXT,
        extra={
            "input": _input(config.side, config.voxel_size_mm),
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}", "training": config.as_dict(), "data": dict(data),
                "scans": dict(counts), "seed": seed, "epoch": fitted.best_epoch,
            },
            "license": "unknown",
        },
        overwrite=True,
    )  # fmt: skip


def write_finetuned(
    path: Path,
    config: FinetuneConfig,
    fitted: Fitted,
    *,
    encoder_fields: Mapping[str, Any],
    head_fields: Mapping[str, Any],
    scale: TargetScale,
    counts: Mapping[str, int],
    seed: int,
    data: Mapping[str, Any],
) -> ModelFolder:
    """Encoder and heads from the best epoch, and how their numbers become years and classes."""
    state = network_weights(fitted.best)
    weights = {ENCODER: _below(state, ENCODER), HEADS: _below(state, HEADS)}
    encoder = _built(encoder_fields, weights[ENCODER])
    side, voxel_size_mm = int(encoder_fields["side"]), float(encoder_fields["voxel_size_mm"])
    name = path.resolve().parent.name
    targets = ", ".join(config.targets)
    card = f"""---
license: unknown
tags: [brain, mri, equivariance, {targets}]
---
# {name}

Reads {targets} from brain-extracted T1-weighted scans in any orientation; finetuned with equivox {equivox.__version__}
on {counts["training"]} scans, chosen by {counts["validation"]} for validation (epoch {fitted.best_epoch}).

## Intended use
Research on scans like those it was trained on. Not a medical device.

## Limits
Accuracy on other scanners and populations is not measured. Validation chose the epoch: expect worse on other scans.
"""
    return write_model_folder(
        path,
        name=name,
        task="encode",
        behaviour="equivox",
        networks={ENCODER: dict(encoder_fields), HEADS: dict(head_fields)},
        weights=weights,
        card=card,
        certificate=certify_encoder(encoder, side),
        license_text=LICENSE_TEXT,
        extra={
            "input": _input(side, voxel_size_mm),
            "output": {
                "targets": list(config.targets), "age_mean": scale.age_mean, "age_sd": scale.age_sd,
                "sex": "logit of male", "diagnoses": list(scale.classes),
            },
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}", "training": config.as_dict(), "data": dict(data),
                "scans": dict(counts), "seed": seed, "epoch": fitted.best_epoch,
            },
            "license": "unknown",
        },
        overwrite=True,
    )  # fmt: skip


def _built(fields: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    network = build_network(fields)
    network.load_state_dict(dict(weights))
    return network.eval()


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of one network."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}


def _input(side: int, voxel_size_mm: float) -> dict[str, Any]:
    return {"side": side, "voxel_size_mm": voxel_size_mm, "contrast": "T1w, brain-extracted", "axes": "RAS"}


def _pretrained_card(name: str, config: PretrainConfig, fitted: Fitted, counts: Mapping[str, int]) -> str:
    terms = ", ".join(f"{term} x {weight:g}" for term, weight in config.terms.items())
    equivariant = config.network["architecture"] == "brain_encoder"
    promise = (
        "Vectors turn with the head by construction; `certificate.json` has the errors."
        if equivariant
        else "Nothing in it is equivariant by construction: a baseline."
    )
    return f"""---
license: unknown
tags: [brain, mri, equivariance, self-supervised]
---
# {name}

An encoder ({config.network["architecture"]}) of brain-extracted T1-weighted scans, pretrained with equivox
{equivox.__version__}, preset {config.preset} ({terms}). {promise}

## Intended use
Research. Codes for probes, alignment and retrieval: `equivox encode embed`, `align`, `probe`. Not a medical device.

## Training
{counts["training"]} scans for training, {counts["validation"]} for validation, without labels; {fitted.epochs} epochs,
the weights are those of epoch {fitted.best_epoch}. Every setting is in `config.json`.

## Limits
What it is good for on other scanners is not measured: use `equivox encode robustness` and `probe` on your own scans.
"""
