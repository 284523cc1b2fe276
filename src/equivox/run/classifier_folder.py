"""From the checkpoint of a classifier to its model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

import equivox
from equivox.run.training import Fitted, network_weights
from equivox.run.training_folder import LICENSE_TEXT
from equivox.weights.folder import ModelFolder, write_model_folder


def kept_weights(fitted: Fitted, select: str) -> tuple[dict[str, Tensor], int]:
    """Weights that are kept, and of which epoch: of the last (``select`` is ``last``), or of the best."""
    if select == "last":
        return network_weights(fitted.last), fitted.epochs - 1
    return network_weights(fitted.best), fitted.best_epoch


def kept_words(select: str, epoch: int, what: str) -> str:
    """The same for people; ``what`` names what was learnt from, in the plural."""
    if select == "last":
        return "those of the last epoch"
    return f"those of epoch {epoch}, chosen by validation ({select}: expect worse on other {what})"


def write_classifier(
    path: Path,
    task: str,
    network: tuple[str, Mapping[str, Any], Mapping[str, Tensor]],
    *,
    card: str,
    certificate: Mapping[str, Any],
    input_fields: Mapping[str, Any],
    data: tuple[str, Sequence[str]],
    provenance: Mapping[str, Any],
) -> ModelFolder:
    """Write the model folder of a training; an earlier one of the same training is replaced.

    Parameters
    ----------
    path
        Where it shall be.
    task
        Who uses it.
    network
        Its name, its fields and its weights.
    card, certificate
        The README and what was measured.
    input_fields
        How things become fields.
    data
        What the data are called, and the classes.
    provenance
        What was done.
    """
    name, fields, weights = network
    return write_model_folder(
        path,
        name=path.resolve().parent.name,
        task=task,
        behaviour="equivox",
        networks={name: dict(fields)},
        weights={name: dict(weights)},
        card=card,
        certificate=dict(certificate),
        license_text=LICENSE_TEXT,
        extra={
            "input": dict(input_fields),
            "output": {"classes": list(data[1])},
            "settings": {"data": data[0]},
            "provenance": {"trained_with": f"equivox {equivox.__version__}", **provenance},
            "license": "unknown",
        },
        overwrite=True,
    )
