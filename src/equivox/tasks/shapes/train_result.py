"""From a checkpoint to a model folder with its card and its certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import equivox
from equivox.nets.shape_net import settle_norms
from equivox.run.sampling import Samples, group_samples
from equivox.run.training import Fitted, network_weights
from equivox.tasks.shapes.certificate import certify_classifier
from equivox.tasks.shapes.config import NETWORK, DataConfig, ShapeTraining
from equivox.tasks.shapes.data import ShapeSource, make_field
from equivox.weights.folder import ModelFolder, write_model_folder
from equivox.weights.registry import build_network

SETTLED_ON = 2048
"""Objects that the statistics of norms are taken over at the end."""
LICENSE_TEXT = """The weights in this folder were trained with equivox by whoever ran the training, on their own data.
Their licence is the one that they and the owners of the data give; write it here. The software that reads them,
equivox, is under Apache-2.0.
"""


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
    last = settings.select == "last"
    weights = network_weights(fitted.last if last else fitted.best)
    network = build_network(fields)
    network.load_state_dict(weights)
    if settings.settle:
        settle_norms(network, _fields_of(samples, settings))
        weights = network.state_dict()
    epoch = fitted.epochs - 1 if last else fitted.best_epoch
    name = path.resolve().parent.name
    return write_model_folder(
        path,
        name=name,
        task="shapes",
        behaviour="equivox",
        networks={NETWORK: fields},
        weights={NETWORK: weights},
        card=_card(name, settings, source, fitted, epoch, counts),
        certificate=certify_classifier(network.eval(), settings.input),
        license_text=LICENSE_TEXT,
        extra={
            "input": settings.input.as_dict(),
            "output": {"classes": list(source.classes)},
            "settings": {"data": source.name},
            "provenance": {
                "trained_with": f"equivox {equivox.__version__}",
                "training": settings.as_dict(),
                "data": data.as_dict(),
                "objects": dict(counts),
                "seed": seed,
                "epoch": epoch,
            },
            "license": "unknown",
        },
        overwrite=True,
    )


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
    chosen = (
        "those of the last epoch"
        if settings.select == "last"
        else f"those of epoch {epoch}, chosen by validation ({settings.select}: expect worse on other objects)"
    )
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
are {chosen}. Every setting is in `config.json`.

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
