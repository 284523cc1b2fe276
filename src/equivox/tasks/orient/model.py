"""A trained orientation network and what it says of pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, InputError, ModelFolderError
from equivox.geometry.point_groups import point_group
from equivox.nets.orientation import OrientationNet
from equivox.nets.orientation_search import Calibration, PoseAnswers, search_poses
from equivox.tasks.orient.config import NETWORK, PictureConfig
from equivox.weights.folder import ModelFolder, find_model
from equivox.weights.opening import input_of, require_task

MOST_ANSWERS = 5


@dataclass(frozen=True, slots=True)
class OrientModel:
    """A model of the task ``orient`` that is ready to be used.

    Parameters
    ----------
    folder
        Where it came from.
    network
        In evaluation mode.
    picture
        What it looks at.
    calibration
        Fitted so that confidences are honest on the validation pictures.
    device
        Where it runs.
    """

    folder: ModelFolder
    network: OrientationNet
    picture: PictureConfig
    calibration: Calibration
    device: str

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        return self.folder.name

    def with_symmetry(self, name: str | None) -> OrientModel:
        """The same model, answers reduced by another point group."""
        return self if name is None else replace(self, picture=replace(self.picture, symmetry=name))

    def answer(self, pictures: Float[Tensor, "picture channel y x"], *, answers: int = 1) -> PoseAnswers:
        """Poses of prepared pictures, best first; on the CPU.

        Raises
        ------
        ConfigError
            If more than five answers are asked for.
        """
        if not 1 <= answers <= MOST_ANSWERS:
            raise ConfigError(f"--hypotheses is {answers}; give 1 to {MOST_ANSWERS}.")
        group = point_group(self.picture.symmetry).float()
        found = search_poses(
            self.network,
            pictures.to(self.device),
            answers=answers,
            group=None if len(group) == 1 else group.to(self.device),
            calibration=self.calibration,
        )
        shifts = None if found.shifts_px is None else found.shifts_px.cpu()
        return PoseAnswers(
            found.rotations.cpu(), found.confidence.cpu(), found.log_density.cpu(), found.entropy.cpu(), shifts
        )

    def predict(self, source: Path | str) -> PoseAnswers:
        """Best pose of every particle of a table or a stack, as `equivox orient predict` finds it.

        Raises
        ------
        InputError
            If the file cannot be used, or an image is broken.

        Examples
        --------
        >>> from equivox.tasks.load import load_model
        >>> load_model("asparagine-synthetase").predict("particles.star").rotations.shape  # doctest: +SKIP
        torch.Size([1000, 1, 3, 3])
        """
        from equivox.tasks.orient.prepare import prepare_stack
        from equivox.tasks.orient.stacks import open_stack

        stack = open_stack(source)
        preparation = prepare_stack(stack, self.picture)
        parts = []
        for start in range(0, len(stack), 256):
            pictures, usable = preparation.pictures(range(start, min(start + 256, len(stack))))
            if not bool(usable.all()):
                bad = start + int((~usable).nonzero()[0])
                raise InputError(f"{source}: the image of particle {bad + 1} is blank or holds NaN; leave it out.")
            parts.append(self.answer(pictures))
        shifts = [part.shifts_px for part in parts if part.shifts_px is not None]
        return PoseAnswers(
            torch.cat([part.rotations for part in parts]), torch.cat([part.confidence for part in parts]),
            torch.cat([part.log_density for part in parts]), torch.cat([part.entropy for part in parts]),
            torch.cat(shifts) if shifts else None,
        )  # fmt: skip


def load_orient_model(name_or_folder: str | Path, device: str = "cpu", symmetry: str | None = None) -> OrientModel:
    """Load a model by the name of its folder or by a path.

    Raises
    ------
    ModelFolderError
        If the model is missing, broken, or no model of this task.
    """
    return open_orient_model(find_model(name_or_folder), device).with_symmetry(symmetry)


def open_orient_model(folder: ModelFolder, device: str = "cpu") -> OrientModel:
    """Build the model of a folder that was read.

    Raises
    ------
    ModelFolderError
        If it is broken, or no model of this task.
    """
    require_task(folder, "orient")
    networks = folder.networks()
    network = networks.get(NETWORK)
    if not isinstance(network, OrientationNet):
        raise ModelFolderError(f"{folder.path} holds the networks {', '.join(networks)}; {NETWORK} alone is needed.")
    output = folder.config.get("output", {})
    numbers = {name: output.get(name, default) for name, default in asdict(Calibration()).items()}
    if not all(isinstance(value, int | float) for value in numbers.values()) or not numbers["temperature"] > 0:
        raise ModelFolderError(f"{folder.path} has the calibration {numbers}; write the folder again.")
    picture = input_of(folder, PictureConfig.from_dict)
    return OrientModel(folder, network.to(device), picture, Calibration(**numbers), device)
