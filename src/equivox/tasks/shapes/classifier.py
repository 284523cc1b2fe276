"""A trained classifier and what it says: from objects to logits, probabilities and labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.tasks.shapes.config import NETWORK, InputConfig
from equivox.tasks.shapes.contents import contents_of
from equivox.tasks.shapes.data import Content, as_sample, make_field, row_count
from equivox.weights.folder import ModelFolder, find_model
from equivox.weights.opening import classes_of, input_of, only_network, require_task

BATCH = 16
"""Objects that go through a network at once, unless their volumes are large."""
VOXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class ShapePrediction:
    """What a classifier says of one object.

    Parameters
    ----------
    object
        Its name within the file: a chain, a residue, a number; empty where the file is one object.
    label
        The class of highest probability.
    probability
        Its probability, as the network has it: not calibrated.
    probabilities
        Of every class, by name.
    """

    object: str
    label: str
    probability: float
    probabilities: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "object": self.object, "label": self.label, "probability": self.probability,
            "probabilities": dict(self.probabilities),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShapeModel:
    """A model of the task ``shapes`` that is ready to be used.

    Parameters
    ----------
    folder
        Where it came from.
    network
        From fields to logits, in evaluation mode.
    input
        How an object becomes a field.
    classes
        Names of the classes, in the order of the logits.
    device
        Where it runs.
    """

    folder: ModelFolder
    network: nn.Module
    input: InputConfig
    classes: tuple[str, ...]
    device: str

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        return self.folder.name

    @torch.inference_mode()
    def logits(
        self, contents: Sequence[Content], *, rotations: Float[Tensor, "object 3 3"] | None = None
    ) -> Float[Tensor, "object classes"]:
        """Logits of objects, each turned by its rotation if there are any; on the CPU."""
        found = []
        for start, stop in _portions(len(contents), self.input.side**3 * self.input.channels):
            samples = [
                as_sample(
                    content,
                    self.input,
                    capacity=max(row_count(other) for other in contents[start:stop]),
                    rotation=None if rotations is None else rotations[start + place],
                )
                for place, content in enumerate(contents[start:stop])
            ]
            group = {name: torch.stack([sample[name] for sample in samples]).to(self.device) for name in samples[0]}
            found.append(self.network(make_field(group, self.input)).float().cpu())
        return torch.cat(found) if found else torch.zeros(0, len(self.classes))

    def describe(self, names: Sequence[str], logits: Float[Tensor, "object classes"]) -> list[ShapePrediction]:
        """Labels and probabilities of logits."""
        probabilities = torch.softmax(logits.double(), dim=1)
        return [
            ShapePrediction(
                object=name,
                label=self.classes[int(row.argmax())],
                probability=float(row.max()),
                probabilities=dict(zip(self.classes, row.tolist(), strict=True)),
            )
            for name, row in zip(names, probabilities, strict=True)
        ]

    def predict(self, source: Path | str | Tensor) -> list[ShapePrediction]:
        """Class of every object in a file, as `equivox shapes predict` writes it.

        Parameters
        ----------
        source
            A file of the kind that the model was trained on, or a volume (x, y, z) or (channel, x, y, z).

        Returns
        -------
        One entry per object: one for a mesh or a volume, one per chain or residue of a structure.

        Raises
        ------
        InputError
            If the file cannot be read, or holds another kind of thing.

        Examples
        --------
        >>> from equivox.tasks.load import load_model
        >>> load_model("cath-10arch").predict("1abc.pdb")[0].label  # doctest: +SKIP
        '3.40'
        """
        found = contents_of(source, self.input)
        return self.describe([name for name, _ in found], self.logits([content for _, content in found]))


def load_shape_model(name_or_folder: str | Path, device: str = "cpu") -> ShapeModel:
    """Load a classifier by the name of its folder or by a path.

    Raises
    ------
    ModelFolderError
        If the model is missing, broken, or no model of this task.
    """
    return open_shape_model(find_model(name_or_folder), device)


def open_shape_model(folder: ModelFolder, device: str = "cpu") -> ShapeModel:
    """Build the classifier of a folder that was read.

    Raises
    ------
    ModelFolderError
        If it is broken, or no model of this task.
    """
    require_task(folder, "shapes")
    network, classes = only_network(folder, NETWORK), classes_of(folder, NETWORK)
    return ShapeModel(folder, network.to(device), input_of(folder, InputConfig.from_dict), classes, device)


def _portions(count: int, voxels: int) -> Iterator[tuple[int, int]]:
    """Ranges of objects that fit into memory together."""
    size = max(1, min(BATCH, VOXELS_AT_ONCE // voxels))
    for start in range(0, count, size):
        yield start, min(start + size, count)
