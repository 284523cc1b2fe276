"""From two published checkpoints to a model folder (fixture 23)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from equivox.errors import ConfigError, ModelFolderError
from equivox.nets.pose import PoseNet
from equivox.nets.unet import UNet
from equivox.weights.checkpoints import published_state
from equivox.weights.importing import ImportSettings, import_published
from equivox.weights.verify import verify_model

FindFixture = Callable[[str], Path]


@pytest.fixture
def checkpoints(fixture_path: FindFixture) -> tuple[Path, Path]:
    return fixture_path("e3pose/23_unet_tiny.ckpt"), fixture_path("e3pose/23_e3cnn_tiny.pth")


SMALL = ImportSettings(segment_size=32, rotate_size=16)


def test_an_imported_folder_is_whole_and_holds_the_original_weights(
    tmp_path: Path, checkpoints: tuple[Path, Path]
) -> None:
    folder = import_published(*checkpoints, tmp_path / "model", settings=SMALL)
    assert [check.name for check in verify_model(folder.path) if not check.ok] == []
    networks = folder.networks()
    segment, rotate = networks["segment"], networks["rotate"]
    assert isinstance(segment, UNet)
    assert isinstance(rotate, PoseNet)
    original = published_state(checkpoints[1], "pose_net")
    assert torch.equal(rotate.output.weight, original["out.weight"])
    assert torch.equal(segment.head.bias, published_state(checkpoints[0], "unet")["last_conv.bias"])
    certificate = folder.certificate()
    assert certificate["rotations_hold"]
    assert min(certificate["plain_convolution_relative_error"].values()) > 0.1
    card = (folder.path / "README.md").read_text()
    assert "Not a medical device" in card
    assert card.startswith("---\nlicense: unknown\n")


def test_settings_that_do_not_fit_are_refused(tmp_path: Path, checkpoints: tuple[Path, Path]) -> None:
    for settings, said in [
        (ImportSettings(segment_size=30), "--segment-size 30 is not a multiple of 4"),
        (ImportSettings(segment_size=32, rotate_size=1), "--rotate-size 1 is below 2"),
        (ImportSettings(segment_size=32, thresholds=(0.5, 0.5)), "2 thresholds for 3 classes"),
    ]:
        with pytest.raises(ConfigError, match=said):
            import_published(*checkpoints, tmp_path / "model", settings=settings)
    with pytest.raises(ConfigError, match="--voxel-size-mm must be above 0"):
        ImportSettings(voxel_size_mm=0.0)
    assert not (tmp_path / "model").exists()


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, checkpoints: tuple[Path, Path]) -> None:
    content = torch.load(checkpoints[0], weights_only=True)
    content["state_dict"]["model.list_decoder_blocks.1.0.weight"] = torch.zeros(4, 12, 5, 5, 5)
    changed = tmp_path / "changed.ckpt"
    torch.save(content, changed)
    with pytest.raises(ModelFolderError, match=r"decoder\.1\.first\.weight has shape \(4, 12, 5, 5, 5\)"):
        import_published(changed, checkpoints[1], tmp_path / "model", settings=SMALL)
    del content["state_dict"]["model.list_decoder_blocks.1.0.weight"]
    torch.save(content, changed)
    with pytest.raises(ModelFolderError, match=r"lacks the tensor that becomes decoder\.1\.first\.weight"):
        import_published(changed, checkpoints[1], tmp_path / "model", settings=SMALL)


def test_the_certificate_shows_what_signed_pooling_costs_in_a_mirror() -> None:
    from equivox.weights.certificate import certify_cube

    torch.manual_seed(0)
    sound = certify_cube(PoseNet(poolings=2, kernel_size=3, multiplier=1).eval())
    assert sound["mirror_holds"]
    torch.manual_seed(0)
    signed = certify_cube(PoseNet(poolings=2, kernel_size=3, multiplier=1, odd_scalars="signed").eval())
    assert signed["rotations_hold"]
    assert not signed["mirror_holds"]
