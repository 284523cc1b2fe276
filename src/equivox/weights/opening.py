"""What a task asks of a model folder before it uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from equivox.errors import ConfigError, ModelFolderError
from equivox.weights.folder import ModelFolder

Parsed = TypeVar("Parsed")


def require_task(folder: ModelFolder, task: str) -> None:
    """ModelFolderError unless a model was trained for a task."""
    found = folder.config["task"]
    if found != task:
        raise ModelFolderError(
            f"{folder.path} holds a model for the task {found!r}; equivox {found} uses it, equivox {task} needs one "
            f"that equivox {task} train has written."
        )


def only_network(folder: ModelFolder, name: str) -> nn.Module:
    """The one network of a folder; ModelFolderError if it is broken or holds others."""
    networks = folder.networks()
    if set(networks) != {name}:
        raise ModelFolderError(f"{folder.path} holds the networks {', '.join(networks)}; {name} alone is needed.")
    return networks[name]


def classes_of(folder: ModelFolder, network: str) -> tuple[str, ...]:
    """Names of a classifier's classes; ModelFolderError where they do not fit its network."""
    classes = folder.config.get("output", {}).get("classes")
    if not isinstance(classes, list) or len(classes) != folder.config["networks"][network].get("classes"):
        raise ModelFolderError(f"{folder.path} does not name the classes of its network; write the folder again.")
    return tuple(str(name) for name in classes)


def input_of(folder: ModelFolder, parse: Callable[..., Parsed]) -> Parsed:
    """``parse(values, where=...)`` of what the folder says of its input; its ConfigError as ModelFolderError."""
    try:
        return parse(folder.config.get("input", {}), where=f"{folder.path}, input")
    except ConfigError as error:
        raise ModelFolderError(f"{folder.path}: {error}") from error
