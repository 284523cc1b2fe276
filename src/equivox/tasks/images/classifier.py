"""A model folder of the task ``images`` that is ready to be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from equivox.formats.pictures import read_picture
from equivox.tasks.images.config import NETWORK, InputConfig
from equivox.tasks.images.data import central_square, make_field, turn_field
from equivox.weights.folder import ModelFolder, find_model
from equivox.weights.opening import classes_of, input_of, only_network, require_task

BATCH = 64


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """The class of one picture.

    Parameters
    ----------
    label
        The class of highest probability.
    probability
        Its probability, as the network has it: not calibrated.
    probabilities
        Of every class, by name.
    """

    label: str
    probability: float
    probabilities: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"label": self.label, "probability": self.probability, "probabilities": dict(self.probabilities)}


@dataclass(frozen=True, slots=True)
class ImageModel:
    """A classifier of pictures.

    Parameters
    ----------
    folder
        Where it came from.
    network
        From fields to logits, in evaluation mode.
    input
        How a picture becomes a field.
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
        self, squares: Sequence[UInt8[Tensor, "channel y x"]], *, angle_deg: float = 0.0, mirror: bool = False
    ) -> Float[Tensor, "picture classes"]:
        """Logits of pictures that are squares already, turned as asked; on the CPU."""
        found = []
        for start in range(0, len(squares), BATCH):
            group = torch.stack(list(squares[start : start + BATCH])).to(self.device)
            field = turn_field(make_field(group, self.input), angle_deg, mirror=mirror)
            found.append(self.network(field).float().cpu())
        return torch.cat(found) if found else torch.zeros(0, len(self.classes))

    def describe(self, logits: Float[Tensor, "picture classes"]) -> list[ImagePrediction]:
        """Labels and probabilities of logits."""
        probabilities = torch.softmax(logits.double(), dim=1)
        return [
            ImagePrediction(
                label=self.classes[int(row.argmax())],
                probability=float(row.max()),
                probabilities=dict(zip(self.classes, row.tolist(), strict=True)),
            )
            for row in probabilities
        ]

    def predict(self, source: Path | str | Tensor) -> ImagePrediction:
        """Class of one image, as `equivox images predict` writes it.

        Parameters
        ----------
        source
            An image file, or pixels 0 to 255 (channel, y, x).

        Raises
        ------
        InputError
            If the file cannot be read, or is too small.
        """
        if isinstance(source, Tensor):
            picture, where = source.to(torch.uint8), "the tensor"
        else:
            where = str(source)
            picture = read_picture(Path(source).expanduser(), channels=3 if self.input.channels == 3 else 1)
        square = central_square(picture, self.input, where=where)
        return self.describe(self.logits([square]))[0]


def load_image_model(name_or_folder: str | Path, device: str = "cpu") -> ImageModel:
    """Load a classifier by the name of its folder or by a path.

    Raises
    ------
    ModelFolderError
        If the model is missing, broken, or no model of this task.
    """
    return open_image_model(find_model(name_or_folder), device)


def open_image_model(folder: ModelFolder, device: str = "cpu") -> ImageModel:
    """Build the classifier of a folder that was read.

    Raises
    ------
    ModelFolderError
        If it is broken, or no model of this task.
    """
    require_task(folder, "images")
    network, classes = only_network(folder, NETWORK), classes_of(folder, NETWORK)
    return ImageModel(folder, network.to(device), input_of(folder, InputConfig.from_dict), classes, device)
