"""Stacks simulated while training: the same place gives the same sample, another epoch another stack."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.simulate.stack_config import StackSimulation
from equivox.tasks.pose.train_config import rotate_preset, segment_preset
from equivox.tasks.pose.train_layout import split_folders
from equivox.tasks.pose.train_simulated import MixedSamples, SimulatedData, SimulatedSamples

FAST = StackSimulation(thick_slices=0.0, head_voxel_mm=4.0, mode_weights=(0.0, 0.0, 1.0, 0.0))


def test_the_same_place_gives_the_same_crop_and_a_proper_rotation() -> None:
    settings = rotate_preset("equivox").with_values(image_size_voxels=16)
    data = SimulatedData(count=3, config=FAST)
    first = SimulatedSamples(data, settings, training=True, seed=1).sample(0, 1)
    again = SimulatedSamples(data, settings, training=True, seed=1).sample(0, 1)
    later = SimulatedSamples(data, settings, training=True, seed=1).sample(1, 1)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], later["image"])
    assert tuple(first["image"].shape) == (1, 16, 16, 16)
    torch.testing.assert_close(torch.linalg.det(first["head_from_image"]), torch.tensor(1.0))


def test_volumes_for_segmentation_hold_brain_and_eyes() -> None:
    settings = segment_preset("equivox").with_values(crop_size_voxels=96)
    samples = SimulatedSamples(SimulatedData(count=5, config=FAST), settings, training=False, seed=1)
    assert len(samples) == 2  # a fifth, at least two
    sample = samples.sample(0, 0)
    assert tuple(sample["image"].shape) == (1, 96, 96, 96)
    assert int((sample["labels"] == 1).sum()) > 2000  # 54 mL at 3 mm
    assert samples.sample(7, 0) is sample


class Counted:
    """Samples that say who they are."""

    def __init__(self, name: float, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        return self.count

    def sample(self, epoch: int, position: int) -> dict[str, torch.Tensor]:
        assert position < self.count
        return {"who": torch.tensor([self.name, float(position)])}


def test_an_epoch_mixes_every_sample_of_both_parts_once() -> None:
    mixed = MixedSamples(Counted(0.0, 3), Counted(1.0, 4), seed=2)
    orders = [[tuple(mixed.sample(epoch, place)["who"].tolist()) for place in range(len(mixed))] for epoch in (0, 1)]
    assert sorted(orders[0]) == [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]
    assert sorted(orders[1]) == sorted(orders[0])
    assert orders[1] != orders[0]


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ConfigError, match="--simulate is 0"):
        SimulatedData(count=0)
    with pytest.raises(ConfigError, match="goes with --preset equivox, not published"):
        SimulatedSamples(SimulatedData(count=1), rotate_preset("published"), training=True, seed=0)


def test_up_to_three_folders_are_validation_and_results() -> None:
    from pathlib import Path

    a, b, c = Path("a"), Path("b"), Path("c")
    assert split_folders([]) == (None, None, None)
    assert split_folders([a]) == (None, None, a)
    assert split_folders([a, b]) == (a, b, None)
    assert split_folders([a, b, c]) == (a, b, c)
