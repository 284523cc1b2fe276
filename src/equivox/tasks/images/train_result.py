"""From a checkpoint to a model folder with its card and its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import equivox
from equivox.nets.projected import ProjectedClassifier
from equivox.run.classifier_folder import kept_weights, kept_words, write_classifier
from equivox.run.training import Fitted
from equivox.tasks.images.config import NETWORK, DataConfig, ImageTraining, InputConfig
from equivox.tasks.images.data import turn_field
from equivox.tasks.images.sources import ImageSource
from equivox.weights.folder import ModelFolder
from equivox.weights.registry import build_network

TOLERANCE = 1e-3
"""Largest change of the logits, relative to their size, that counts as none in float32."""


def write_model(
    path: Path,
    settings: ImageTraining,
    fields: Mapping[str, Any],
    source: ImageSource,
    fitted: Fitted,
    *,
    data: DataConfig,
    counts: Mapping[str, int],
    seed: int,
) -> ModelFolder:
    """Write the model folder of a training; an earlier one of the same training is replaced."""
    weights, epoch = kept_weights(fitted, settings.select)
    network = build_network(fields)
    network.load_state_dict(weights)
    return write_classifier(
        path,
        "images",
        (NETWORK, fields, weights),
        card=_card(path.resolve().parent.name, settings, source, fitted, epoch, counts),
        certificate=certify_images(network.eval(), settings.input),
        input_fields=settings.input.as_dict(),
        data=(source.name, source.classes),
        provenance={
            "training": settings.as_dict(), "data": data.as_dict(), "pictures": dict(counts), "seed": seed,
            "epoch": epoch,
        },
    )  # fmt: skip


@torch.inference_mode()
def certify_images(network: nn.Module, config: InputConfig) -> dict[str, Any]:
    """Change of the logits under a quarter turn, a half turn and a mirror, on noise, relative to their size."""
    draw = torch.Generator().manual_seed(0)
    field = torch.randn(2, config.channels, config.side, config.side, generator=draw)
    before = network(field)
    size = before.abs().max().clamp_min(1e-12)
    elements = {"quarter turn": (90.0, False), "half turn": (180.0, False), "mirror": (0.0, True)}
    errors = {
        name: float((network(turn_field(field, angle, mirror=mirror)) - before).abs().max() / size)
        for name, (angle, mirror) in elements.items()
    }
    return {
        "equivox_version": equivox.__version__,
        "input": f"white noise, {config.side} pixels a side, float32",
        "network": NETWORK,
        "relative_change_of_logits": errors,
        "tolerance": TOLERANCE,
        "turns_hold": max(errors.values()) <= TOLERANCE,
        "grid": network.grid.name
        if isinstance(network, ProjectedClassifier)
        else "none: the network is not equivariant",
        "generic_angles": "not measured: needs data",
    }


def _card(
    name: str, settings: ImageTraining, source: ImageSource, fitted: Fitted, epoch: int, counts: Mapping[str, int]
) -> str:
    """The README: what was trained on what, and what is not known."""
    colours = "grey" if settings.input.channels == 1 else "colour"
    return f"""---
license: unknown
tags: [image-classification, equivariance]
---
# {name}

A classifier of images ({settings.preset}) with {len(source.classes)} classes, trained with equivox
{equivox.__version__} on {source.name}.

## Intended use
Research on images like those it was trained on. It always answers with one of its classes, also for an image of none.

## Training
{counts["training"]} pictures for training, {counts["validation"]} for validation; {fitted.epochs} epochs; the weights
are {kept_words(settings.select, epoch, "pictures")}. Every setting is in `config.json`.

## Input
{settings.input.side} x {settings.input.side} pixels, {colours}; central square
{f"of {settings.input.crop} pixels " if settings.input.crop else ""}of the image.

## Classes
{", ".join(source.classes)}

## Limits
Accuracy on other data is not measured: use `equivox images evaluate` on pictures that took no part in the training.
"""
