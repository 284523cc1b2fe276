"""One loader for every model folder: ``load_model(name_or_folder).predict(file)``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from equivox.errors import ModelFolderError
from equivox.formats.nifti import read_volume
from equivox.geometry.space import Volume
from equivox.weights.folder import ModelFolder, find_model

TASKS: Mapping[str, str] = {
    "images": "equivox.tasks.images.classifier:open_image_model",
    "pose": "equivox.tasks.pose.model:open_pose_model",
    "shapes": "equivox.tasks.shapes.classifier:open_shape_model",
    "pick": "equivox.tasks.pick.picker:open_pick_model",
    "orient": "equivox.tasks.orient.model:open_orient_model",
    "encode": "equivox.tasks.encode.model:open_encode_model",
}
"""``task`` in ``config.json`` -> function that builds the model of a folder."""


@runtime_checkable
class LoadedModel(Protocol):
    """What every model of ours can do, whatever its task."""

    @property
    def name(self) -> str:
        """Name in the model folder's configuration."""
        ...

    @property
    def folder(self) -> ModelFolder:
        """Where it came from."""
        ...

    @property
    def predict(self) -> Any:
        """From a file, or what a file holds, to the task's own result, as the command `predict` writes it."""
        ...


def load_model(
    name_or_folder: str | Path, device: str = "cpu", *, behaviour: Literal["published", "mended"] | None = None
) -> LoadedModel:
    """Load a model by the name of its folder or by a path; nothing is downloaded.

    Parameters
    ----------
    name_or_folder
        A name is looked up in ``EQUIVOX_HOME`` (default ``~/.local/share/equivox/models``) and among the models that
        come with the package; a path needs a separator in it (``./model``).
    device
        ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    behaviour
        For an imported pose model, instead of the folder's own; models of our own kind have one and ignore it.

    Returns
    -------
    For the task ``pose`` a :class:`equivox.tasks.pose.model.PoseModel`, for ``shapes`` a
    :class:`equivox.tasks.shapes.classifier.ShapeModel`, for ``encode`` an
    :class:`equivox.tasks.encode.model.EncodeModel`.

    Raises
    ------
    ModelFolderError
        If the model is missing, broken, or of a task or behaviour that this version does not know.
    """
    folder = find_model(name_or_folder)
    task = str(folder.config["task"])
    if task not in TASKS:
        raise ModelFolderError(
            f"{folder.path} holds a model for the task {task!r}; this version can load: {', '.join(TASKS)}."
        )
    module, _, name = TASKS[task].partition(":")
    options = {"behaviour": behaviour} if task == "pose" else {}
    found: LoadedModel = getattr(importlib.import_module(module), name)(folder, device, **options)
    return found


def load_volume(path: Path | str) -> Volume:
    """Read a NIfTI or MGH file that holds one 3D volume.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, constant, not finite, or a series.
    """
    return read_volume(path)
