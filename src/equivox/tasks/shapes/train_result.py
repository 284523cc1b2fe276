"""From a checkpoint to a model folder with its card and its certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import equivox
from equivox.nets.shape_net import settle_norms
from equivox.run.classifier_folder import kept_weights, kept_words, write_classifier
from equivox.run.sampling import Samples, group_samples
from equivox.run.training import Fitted
from equivox.tasks.shapes.certificate import certify_classifier
from equivox.tasks.shapes.config import NETWORK, DataConfig, ShapeTraining
from equivox.tasks.shapes.data import ShapeSource, make_field
from equivox.weights.folder import ModelFolder
from equivox.weights.registry import build_network

SETTLED_ON = 2048
"""Objects that the statistics of norms are taken over at the end."""


def write_model(
    path: Path,
    settings: ShapeTraining,
    fields: Mapping[str, Any],
    source: ShapeSource,
    fitted: Fitted,
    *,
    data: DataConfig,
    samples: Samples,
    counts: Mapping[str, int],
    seed: int,
) -> ModelFolder:
    """Write the model folder of a training; an earlier one of the same training is replaced.

    Parameters
    ----------
    path
        Where it shall be.
    settings, fields, source, fitted, data, counts, seed
        What was done, for the configuration and the card.
    samples
        Objects of the training, for the statistics of norms that settle at the end.
    """
    weights, epoch = kept_weights(fitted, settings.select)
    network = build_network(fields)
    network.load_state_dict(weights)
    if settings.settle:
        settle_norms(network, _fields_of(samples, settings))
        weights = network.state_dict()
    return write_classifier(
        path,
        "shapes",
        (NETWORK, fields, weights),
        card=_card(path.resolve().parent.name, settings, source, fitted, epoch, counts),
        certificate=certify_classifier(network.eval(), settings.input),
        input_fields=settings.input.as_dict(),
        data=(source.name, source.classes),
        provenance={
            "training": settings.as_dict(), "data": data.as_dict(), "objects": dict(counts), "seed": seed,
            "epoch": epoch,
        },
    )  # fmt: skip


def _fields_of(samples: Samples, settings: ShapeTraining) -> Iterator[Tensor]:
    """Objects of the last epoch of training, batch by batch; at most :data:`SETTLED_ON`."""
    count = min(len(samples), SETTLED_ON)
    for start in range(0, count, settings.batch_size):
        places = range(start, min(start + settings.batch_size, count))
        for group in group_samples([samples.sample(settings.epochs - 1, place) for place in places]):
            yield make_field(group, settings.input)


def _card(
    name: str, settings: ShapeTraining, source: ShapeSource, fitted: Fitted, epoch: int, counts: Mapping[str, int]
) -> str:
    """The README: what was trained on what, and what is not known."""
    return f"""---
license: unknown
tags: [classification, equivariance, 3d]
---
# {name}

A classifier ({settings.network["architecture"]}) of {len(source.classes)} classes, trained with equivox
{equivox.__version__}, preset {settings.preset}, on {source.name}.

## Intended use
Research on objects like those it was trained on. It always answers with one of its classes, also for an object of none.

## Training
{counts["training"]} objects for training, {counts["validation"]} for validation; {fitted.epochs} epochs; the weights
are {kept_words(settings.select, epoch, "objects")}. Every setting is in `config.json`.

## Input
{_input_words(settings)}

## Classes
{", ".join(source.classes)}

## Limits
Accuracy on other data is not measured: use `equivox shapes evaluate` on objects that took no part in the training.
"""


def _input_words(settings: ShapeTraining) -> str:
    grid = settings.input
    words = f"Objects of the kind `{grid.kind}` on {grid.side} voxels a side, {grid.channels} channel(s)"
    if grid.kind in ("points", "mesh", "environment"):
        words += f", {grid.spacing:g} apart, a point a Gaussian of {grid.sigma:g}"
    return f"{words}."
