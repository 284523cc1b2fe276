"""A brain encoder that is ready to be used: from a prepared brain to its code, in the world's axes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ModelFolderError
from equivox.nets.brain_code import BrainCode
from equivox.tasks.encode.data import Brain, open_brain
from equivox.weights.folder import ModelFolder, find_model

ENCODER = "encoder"
"""Name of the network in a model folder that makes codes; others there (a decoder, heads) are left alone."""
LOW_CONFIDENCE = 0.1
"""Below this ratio of singular values the vectors do not fix an orientation (soe.md, G2c)."""


@dataclass(frozen=True, slots=True)
class Embedding:
    """The code of one scan; vectors in world RAS axes, on the CPU.

    Parameters
    ----------
    code
        Polar and axial vectors, invariants, pseudo-invariants, without a batch axis in front.
    direction
        Unit vectors of the file's voxel axes in the world, as columns.
    confidence
        Second over first singular value of all vectors: 0 where an angle is undetermined, 1 at best.
    warnings
        Sentences about the scan.
    """

    polar: Float[Tensor, "polar 3"]
    axial: Float[Tensor, "axial 3"]
    scalars: Float[Tensor, " scalar"]
    pseudoscalars: Float[Tensor, " pseudoscalar"]
    direction: Float[Tensor, "3 3"]
    confidence: float
    warnings: tuple[str, ...] = ()

    @property
    def polar_voxel(self) -> Float[Tensor, "polar 3"]:
        """Polar vectors along the file's voxel axes (i, j, k): ``D^T v``."""
        return self.polar @ self.direction.to(self.polar)

    @property
    def axial_voxel(self) -> Float[Tensor, "axial 3"]:
        """Axial vectors along the file's voxel axes: ``det(D) D^T a``, of the other sign on a left-handed grid."""
        handed = float(torch.linalg.det(self.direction).sign())
        return (self.axial @ self.direction.to(self.axial)) * handed


class EncodeModel:
    """An encoder with what it needs to know of its input.

    Parameters
    ----------
    network
        ``network(volume, mask) -> BrainCode``, with ``side`` and ``voxel_size_mm``.
    device
        Where it runs.
    folder
        Where it came from; None for a network that was made here.
    """

    def __init__(self, network: nn.Module, device: str = "cpu", *, folder: ModelFolder | None = None) -> None:
        self.network, self.device, self._folder = network.eval().to(device), device, folder
        shape: Any = network
        self.side, self.voxel_size_mm = int(shape.side), float(shape.voxel_size_mm)

    @property
    def folder(self) -> ModelFolder:
        """Where it came from."""
        if self._folder is None:
            raise ModelFolderError("this encoder was not read from a model folder.")
        return self._folder

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        return "made here" if self._folder is None else self._folder.name

    def code(self, brains: list[Brain]) -> BrainCode:
        """Codes of several brains on one grid, on the CPU in float32."""
        volume = torch.stack([brain.volume for brain in brains]).to(self.device)
        mask = torch.stack([brain.mask for brain in brains]).to(self.device)
        with torch.inference_mode():
            found: BrainCode = self.network(volume, mask)
        return BrainCode(*(part.float().cpu() for part in found))

    def embed(self, brain: Brain) -> Embedding:
        """Code of one brain."""
        polar, axial, scalars, pseudo = (part[0] for part in self.code([brain]))
        return Embedding(
            polar, axial, scalars, pseudo, brain.direction, orientation_confidence(polar, axial), brain.warnings
        )

    def predict(self, scan: Path | str, *, mask: Path | str | None = None, brain_extracted: bool = False) -> Embedding:
        """Code of the brain in a file, as `equivox encode embed` writes it.

        Raises
        ------
        InputError
            If the file cannot be used or the skull is there.

        Examples
        --------
        >>> model = load_encode_model("brain-encoder-t1")  # doctest: +SKIP
        >>> model.predict("sub-01_T1w_brain.nii.gz").scalars  # doctest: +SKIP
        """
        source = open_brain(scan, mask=mask, brain_extracted=brain_extracted, voxel_size_mm=self.voxel_size_mm)
        return self.embed(source.sample(side=self.side))


def orientation_confidence(polar: Float[Tensor, "polar 3"], axial: Float[Tensor, "axial 3"]) -> float:
    """Second over first singular value of all vectors as rows; 0 for vectors that all vanish."""
    values = torch.linalg.svdvals(torch.cat([polar, axial]).double())
    return float(values[1] / values[0]) if len(values) > 1 and float(values[0]) > 0 else 0.0


def open_encode_model(folder: ModelFolder, device: str = "cpu") -> EncodeModel:
    """Build the encoder of a folder that was read.

    Raises
    ------
    ModelFolderError
        If it is broken, or of another task.
    """
    require_encoder(folder)
    return EncodeModel(folder.networks()[ENCODER], device, folder=folder)


def require_encoder(folder: ModelFolder) -> None:
    """ModelFolderError unless a folder's configuration describes an encoder; weights are not read."""
    task = folder.config["task"]
    if task != "encode":
        raise ModelFolderError(
            f"{folder.path} holds a model for the task {task!r}; equivox encode needs one for the task 'encode'."
        )
    networks = folder.config["networks"]
    if ENCODER not in networks:
        raise ModelFolderError(f"{folder.path} has no network named {ENCODER!r}; it holds {', '.join(networks)}.")


def load_encode_model(name_or_folder: str | Path, device: str = "cpu") -> EncodeModel:
    """Load an encoder by the name of its folder or by a path; see :func:`open_encode_model`."""
    return open_encode_model(find_model(name_or_folder), device)
