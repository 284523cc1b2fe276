"""The head estimator: mask in, pose out; honest statuses; the model folder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from equivox.errors import ModelFolderError
from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.space import Volume
from equivox.nets.finder import FinderNet
from equivox.nets.head_pose import HeadPoseNet
from equivox.tasks.pose.estimator import HeadEstimator, HeadSettings, read_settings
from equivox.tasks.pose.rotate import CropConfig
from equivox.weights.folder import write_model_folder

CENTER = torch.tensor([20.0, -15.0, 40.0], dtype=torch.float64)
SETTINGS = HeadSettings(
    crop=CropConfig(side=16, voxel_size_mm=8.0, raw_channel=False), views=6, confidence_weights=(2.0, 0.0, 0.0)
)


class Moments(nn.Module):
    """An equivariant stand-in for the rotation network: two axes from moments of the middle and of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Cross product (a pseudovector), then the two vectors."""
        side = crops.shape[-1]
        axis = (torch.arange(side) - (side - 1) / 2) / side
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        radius = grid.square().sum(0)
        first = torch.einsum("ncxyz,axyz->na", crops, grid * (-radius / 0.02).exp())
        second = torch.einsum("ncxyz,axyz->na", crops, grid * (radius < 0.16))
        return torch.cat([torch.linalg.cross(first, second), first, second], dim=1) * self.scale


class Blind(nn.Module):
    """A finder that sees nothing anywhere."""

    def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Logits of "brain"."""
        return torch.full_like(image, -20.0) + 0 * valid


def head(affine: torch.Tensor, shape: tuple[int, int, int]) -> tuple[Volume, Volume]:
    """A ball of 290 mL with two bright spots, and its mask."""
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"), dim=-1)
    world = index @ affine[:3, :3].mT + affine[:3, 3] - CENTER
    distance = world.norm(dim=-1)
    data = 100 * torch.sigmoid((42 - distance) / 3)
    for place, bright, width in (([10.0, 20.0, 20.0], 150.0, 10.0), ([12.0, -3.0, -4.0], 80.0, 10.0)):
        data = data + bright * (-(world - torch.tensor(place)).square().sum(-1) / (2 * width**2)).exp()
    radius = (3 * 290e3 / (4 * math.pi)) ** (1 / 3)
    mask = (distance < radius).float()[None]
    return Volume(data[None].float(), affine, "head"), Volume(mask, affine, "mask")


@pytest.fixture
def estimator() -> HeadEstimator:
    """Blind without a mask."""
    return HeadEstimator({"locate": Blind(), "rotate": Moments()}, SETTINGS)


@pytest.fixture
def affine() -> torch.Tensor:
    """3 mm, RAS, the head in the middle."""
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = CENTER - 3.0 * 29.5
    return affine


def test_a_mask_replaces_the_localisation(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    found = estimator.estimate(volume, mask=mask)
    assert found.status == "ok"
    pose = found.require_pose()
    torch.testing.assert_close(pose.translation_mm.double(), CENTER, atol=1.0, rtol=0)
    assert found.mask_volume_ml == pytest.approx(290.0, rel=0.02)
    assert found.mask is not None
    assert found.mask.shape == volume.shape
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-2)))
    assert float(torch.linalg.det(pose.rotation)) == pytest.approx(1.0, abs=1e-6)


def test_left_handed_and_permuted_storage_give_the_same_pose(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    reference = estimator.estimate(volume, mask=mask).require_pose()
    for codes in ("LPS", "LAS", "PIL", "SRA"):
        other = estimator.estimate(volume.reorient(codes), mask=mask.reorient(codes)).require_pose()
        assert math.degrees(float(geodesic_angle(reference.rotation, other.rotation))) < 0.2
        torch.testing.assert_close(other.translation_mm, reference.translation_mm, atol=1e-3, rtol=0)


def test_thick_slices_give_nearly_the_same_pose(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    reference = estimator.estimate(volume, mask=mask).require_pose()
    thick = torch.diag(torch.tensor([2.0, 2.0, 4.5, 1.0], dtype=torch.float64))
    thick[:3, 3] = CENTER - torch.tensor([88.0, 88.0, 87.75], dtype=torch.float64)
    volume, mask = head(thick, (89, 89, 40))
    other = estimator.estimate(volume, mask=mask).require_pose()
    assert math.degrees(float(geodesic_angle(reference.rotation, other.rotation))) < 15.0


def test_an_empty_mask_and_a_blind_finder_say_no_object(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (40, 40, 40))
    empty = estimator.estimate(volume, mask=Volume(torch.zeros_like(mask.data), affine, "empty"))
    nothing = estimator.estimate(volume)
    for answer in (empty, nothing):
        assert answer.status == "no_object"
        assert answer.world_from_head is None
        assert answer.reason


def test_doubt_is_said(affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    doubtful = replace(SETTINGS, confidence_weights=(-2.0, 0.0, 0.0))
    answer = HeadEstimator({"locate": Blind(), "rotate": Moments()}, doubtful).estimate(volume, mask=mask)
    assert answer.status == "low_confidence"
    assert "confidence 0.12" in answer.reason
    assert answer.world_from_head is not None


def test_a_head_cut_by_the_field_of_view_is_said(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    start, stop = (0, 0, 0), (60, 60, 30)
    answer = estimator.estimate(volume.crop(start, stop), mask=mask.crop(start, stop))
    # the mask's centre moves into what is left, so the share seen is above one half
    assert answer.details["share_in_field_of_view"] < 0.9
    assert answer.status in ("ok", "low_confidence")


def test_an_absurd_mask_volume_is_clipped_with_a_warning(estimator: HeadEstimator, affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    answer = estimator.estimate(volume, mask=Volume(torch.ones_like(mask.data), affine, "all"))
    assert answer.warnings
    assert "mL" in answer.warnings[0]


def test_a_given_mask_is_not_corrected_in_volume(affine: torch.Tensor) -> None:
    volume, mask = head(affine, (60, 60, 60))
    networks = {"locate": Blind(), "rotate": Moments()}
    plain = HeadEstimator(networks, SETTINGS).estimate(volume, mask=mask).require_pose()
    other = HeadEstimator(networks, replace(SETTINGS, volume_correction=0.3)).estimate(volume, mask=mask).require_pose()
    assert torch.equal(plain.rotation, other.rotation)


def test_a_model_folder_round_trip(tmp_path: Path, affine: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    finder, rotator = FinderNet(levels=2, features=2), HeadPoseNet(2, 16, generator=generator)
    networks = {
        "locate": {"architecture": "finder", "levels": 2, "features": 2},
        "rotate": {"architecture": "head_pose", "channels_in": 2, "side": 16},
    }
    settings = {"crop": {"side": 16, "voxel_size_mm": 8.0}, "views": 2, "confidence_weights": [0.0, 0.0, 0.0]}
    folder = write_model_folder(
        tmp_path / "model", name="model", task="pose", behaviour="equivox", networks=networks,
        weights={"locate": finder.state_dict(), "rotate": rotator.state_dict()}, card="# card", certificate={"a": 1},
        license_text="Apache-2.0", extra={"settings": settings},
    )  # fmt: skip
    loaded = HeadEstimator.from_folder(folder)
    assert loaded.settings.crop.side == 16
    assert loaded.settings.confidence_weights == (0.0, 0.0, 0.0)
    volume, mask = head(affine, (60, 60, 60))
    answer = loaded.estimate(volume, mask=mask)
    assert answer.confidence == 0.5
    direct = HeadEstimator({"locate": finder, "rotate": rotator}, loaded.settings).estimate(volume, mask=mask)
    torch.testing.assert_close(answer.require_pose().rotation, direct.require_pose().rotation, atol=1e-5, rtol=0)


def test_unknown_settings_and_missing_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="did you mean 'views'"):
        read_settings({"view": 3}, where=tmp_path)
    with pytest.raises(ModelFolderError, match="unknown key 'sides'"):
        read_settings({"crop": {"sides": 3}}, where=tmp_path)
    with pytest.raises(ModelFolderError, match="locate"):
        HeadEstimator({"rotate": Moments()}, SETTINGS)
    with pytest.raises(ModelFolderError, match="rotation"):
        HeadEstimator({"locate": Blind()}, SETTINGS)
