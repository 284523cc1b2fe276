"""Published names and shapes (fixtures 22, 23): sizes are inferred, constants compared, nothing is guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from equivox.errors import ModelFolderError
from equivox.weights.checkpoints import published_state
from equivox.weights.published_names import pose_net_fields, pose_net_weights, unet_fields, unet_weights
from equivox.weights.registry import build_network

FindFixture = Callable[[str], Path]


def _shapes(path: Path) -> dict[str, list[int]]:
    return {name: shape for name, (shape, _) in json.loads(path.read_text()).items()}


def test_the_default_unet_is_recognised_and_takes_all_65_tensors(fixture_path: FindFixture) -> None:
    shapes = _shapes(fixture_path("e3pose/22_unet_default_state_dict_keys.json"))
    assert len(shapes) == 65
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    fields = unet_fields(state, activation="elu", where="x")
    assert (fields["levels"], fields["features"], fields["multiplier"], fields["classes"]) == (4, 16, 2, 3)
    network = build_network(fields)
    renamed = unet_weights(state, where="x")
    assert {name: tuple(value.shape) for name, value in renamed.items()} == {
        name: tuple(value.shape) for name, value in network.state_dict().items()
    }


def test_the_default_e3cnn_is_recognised_among_its_366_tensors(fixture_path: FindFixture) -> None:
    shapes = _shapes(fixture_path("e3pose/22_e3cnn_default_state_dict_keys.json"))
    assert len(shapes) == 366
    constants = (".emb", ".sh")
    state = {
        name.removeprefix("net."): torch.zeros(shape)
        for name, shape in shapes.items()
        if not name.endswith(constants) and "_w3j_" not in name
    }
    fields = pose_net_fields(state, where="x")
    assert (fields["poolings"], fields["kernel_size"], fields["multiplier"]) == (4, 5, 2)
    network = build_network(fields)
    renamed = pose_net_weights(state, where="x")
    assert {name: tuple(value.shape) for name, value in renamed.items()} == {
        name: tuple(value.shape) for name, value in network.state_dict().items()
    }


def test_every_constant_of_the_tiny_checkpoint_agrees_with_ours(fixture_path: FindFixture) -> None:
    state = published_state(fixture_path("e3pose/23_e3cnn_tiny.pth"), "pose_net")
    assert sum("_w3j_" in name for name in state) > 60
    assert len(pose_net_weights(state, where="x")) == 18


@pytest.mark.parametrize("kind", ["emb", "sh", "_w3j_1_1_1"])
def test_a_constant_that_differs_is_refused(kind: str, fixture_path: FindFixture) -> None:
    state = published_state(fixture_path("e3pose/23_e3cnn_tiny.pth"), "pose_net")
    name = next(name for name in state if name.endswith(kind))
    changed = state[name].clone()
    changed.view(-1)[changed.numel() // 2 + 1] += 1e-3
    with pytest.raises(ModelFolderError, match=r"differs from ours by 0\.001"):
        pose_net_weights({**state, name: changed}, where="file.pth")


def test_a_checkpoint_without_constants_is_taken(fixture_path: FindFixture) -> None:
    state = published_state(fixture_path("e3pose/23_e3cnn_tiny.pth"), "pose_net")
    learned = {name: value for name, value in state.items() if name.endswith(("weight", "bias")) and "tp." not in name}
    assert len(pose_net_weights(learned, where="x")) == 18
    assert pose_net_fields(learned, where="x")["kernel_size"] == 3


def test_tensors_of_another_network_are_refused(fixture_path: FindFixture) -> None:
    state = published_state(fixture_path("e3pose/23_e3cnn_tiny.pth"), "pose_net")
    with pytest.raises(ModelFolderError, match=r"holds extra\.weight, which the published E"):
        pose_net_weights({**state, "extra.weight": torch.zeros(1)}, where="file.pth")
    with pytest.raises(ModelFolderError, match="published U-Net does not have"):
        unet_weights({"extra.weight": torch.zeros(1)}, where="file.ckpt")
    lattice = "down.down_blocks.0.conv1.lattice"
    with pytest.raises(ModelFolderError, match="3 of them on 3 taps per axis"):
        pose_net_fields({**state, lattice: torch.zeros(5, 5, 5, 3)}, where="file.pth")
    with pytest.raises(ModelFolderError, match=r"lacks last_conv\.weight"):
        unet_fields({"list_encoder_blocks.0.0.weight": torch.zeros(4, 1, 3, 3, 3)}, activation="elu", where="f")


def test_the_mode_of_rotations_alone_is_named() -> None:
    state = {
        "down.down_blocks.0.conv1.weight": torch.zeros(5, 14),
        "down.down_blocks.0.conv1.sc.weight": torch.zeros(14),
        "down.down_blocks.0.conv2.sc.weight": torch.zeros(132),
    }
    with pytest.raises(ModelFolderError, match=r"original's SO\(3\) mode.*from_e3nn"):
        pose_net_fields(state, where="x.pth")
    state["down.down_blocks.0.conv2.sc.weight"] = torch.zeros(131)
    with pytest.raises(ModelFolderError, match="not ten per base field"):
        pose_net_fields(state, where="x.pth")
