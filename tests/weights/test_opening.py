"""What a task asks of a model folder before it uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from equivox.errors import ConfigError, ModelFolderError
from equivox.weights.folder import ModelFolder, find_model
from equivox.weights.opening import classes_of, input_of, only_network, require_task


def test_a_model_of_another_task_says_who_uses_it() -> None:
    require_task(find_model("tetris"), "shapes")
    with pytest.raises(ModelFolderError, match="for the task 'shapes'; equivox shapes uses it, equivox pick needs one"):
        require_task(find_model("tetris"), "pick")


def test_networks_and_classes_must_be_those_of_the_task(tmp_path: Path) -> None:
    folder = find_model("tetris")
    name = next(iter(folder.config["networks"]))
    assert len(classes_of(folder, name)) == 8
    with pytest.raises(ModelFolderError, match=f"holds the networks {name}; picker alone is needed"):
        only_network(folder, "picker")
    fewer = ModelFolder("fewer", tmp_path, {**folder.config, "output": {"classes": ["one"]}})
    with pytest.raises(ModelFolderError, match="does not name the classes"):
        classes_of(fewer, name)


def test_an_input_that_cannot_be_read_is_the_folders_fault() -> None:
    def parse(values: dict[str, Any], *, where: str) -> int:
        raise ConfigError(f"{where}: side is 0.")

    with pytest.raises(ModelFolderError, match="input: side is 0"):
        input_of(find_model("tetris"), parse)
