"""Checkpoints of strangers: nothing of theirs runs, and every refusal is one sentence."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.errors import ModelFolderError
from equivox.weights.checkpoints import Kind, published_state, read_checkpoint

FindFixture = Callable[[str], Path]


class Malicious:
    """Unpickling this creates a file: harmless, and visible."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def _refusal(path: Path, expected: Kind | None = None) -> str:
    with pytest.raises(ModelFolderError) as caught:
        published_state(path, expected) if expected else read_checkpoint(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_the_marker_would_appear_if_a_malicious_file_were_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Malicious(marker)))
    assert marker.exists()


def _plain_pickle(path: Path, bad: Malicious) -> None:
    path.write_bytes(pickle.dumps({"net_state_dict": bad}))


def _zip_beside_a_state(path: Path, bad: Malicious) -> None:
    torch.save({"state_dict": {"model.list_encoder_blocks.0.0.weight": torch.zeros(1)}, "hook": bad}, path)


def _zip_in_callbacks(path: Path, bad: Malicious) -> None:
    state = {"model.list_encoder_blocks.0.0.weight": torch.zeros(1)}
    torch.save({"state_dict": state, "callbacks": {"ModelCheckpoint": {"best_model_path": bad}}}, path)


def _legacy_torch(path: Path, bad: Malicious) -> None:
    torch.save({"net_state_dict": bad}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [_plain_pickle, _zip_beside_a_state, _zip_in_callbacks, _legacy_torch])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    write: Callable[[Path, Malicious], None], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "model.pth"
    write(path, Malicious(marker))
    text = _refusal(path)
    assert "foreign code" in text
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [
        ("23_e3cnn_tiny.pth", "unet", "is the E(3)-CNN (a .pth); expected the segmentation U-Net (a Lightning .ckpt)"),
        ("23_unet_tiny.ckpt", "pose_net", "is the segmentation U-Net (a Lightning .ckpt); expected the E(3)-CNN"),
        ("23_wrong_kind.ckpt", "unet", "its state_dict begins with model.fc.weight"),
        ("23_no_known_key.pth", "pose_net", "its keys are not_a_checkpoint"),
    ],
)
def test_a_checkpoint_of_another_kind_is_named(name: str, expected: Kind, said: str, fixture_path: FindFixture) -> None:
    assert said in _refusal(fixture_path(f"e3pose/{name}"), expected)


def test_damaged_files_are_told_apart(tmp_path: Path, fixture_path: FindFixture) -> None:
    whole = fixture_path("e3pose/23_unet_tiny.ckpt").read_bytes()
    truncated, empty, text = tmp_path / "truncated.ckpt", tmp_path / "empty.ckpt", tmp_path / "text.ckpt"
    truncated.write_bytes(whole[: len(whole) // 2])
    empty.touch()
    text.write_text("these are not the weights you are looking for\n")
    assert "truncated or damaged" in _refusal(truncated)
    assert "is empty" in _refusal(empty)
    assert "is not a torch checkpoint" in _refusal(text)
    assert "is a folder" in _refusal(tmp_path)
    assert "does not exist" in _refusal(tmp_path / "absent.ckpt")


def test_a_bare_tensor_and_weights_that_diverged_are_refused(tmp_path: Path) -> None:
    bare, diverged = tmp_path / "bare.pth", tmp_path / "diverged.pth"
    torch.save(torch.zeros(3), bare)
    torch.save({"net_state_dict": {"net.down.down_blocks.0.conv1.weight": torch.tensor([float("nan")])}}, diverged)
    assert "holds a Tensor, not the dictionary" in _refusal(bare)
    assert "NaN or infinite weights in down.down_blocks.0.conv1.weight" in _refusal(diverged, "pose_net")


def test_published_containers_are_read(fixture_path: FindFixture) -> None:
    unet = published_state(fixture_path("e3pose/23_unet_tiny.ckpt"), "unet")
    assert "list_encoder_blocks.0.0.weight" in unet
    assert not any(name.startswith(("model.", "loss_fn")) for name in unet)
    pose = published_state(fixture_path("e3pose/23_e3cnn_tiny.pth"), "pose_net")
    assert pose["down.down_blocks.0.conv1.weight"].shape == (3, 26)
