"""Masks of the published pipeline against the original's (fixture 11), and the laws of components."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.tasks.pose.published_masks import (
    brain_and_eyes,
    center_of_mask,
    classify,
    component_count,
    default_thresholds,
    largest_component,
    voxels_to_border,
)


@pytest.fixture(scope="module")
def numbers(fixture_path: Callable[[str], Path]) -> dict[str, np.ndarray]:
    with np.load(fixture_path("e3pose/11_postprocess_seg.npz")) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    ("name", "thresholds"),
    [("default", (0.9, 0.8, -1.0)), ("alt", (0.15, 0.8, -1.0)), ("none", (-1.0, -1.0, -1.0))],
)
def test_masks_are_the_original_ones(name: str, thresholds: tuple[float, ...], numbers: dict[str, np.ndarray]) -> None:
    classes = classify(torch.from_numpy(numbers["probs"]), thresholds)
    differ = int((classes.numpy() != numbers[f"argmax_{name}"]).sum())
    assert differ <= (1 if name == "default" else 0)  # one voxel hangs on a float32 tie of the second softmax
    mask = largest_component(classes == 1)
    np.testing.assert_array_equal(mask.numpy(), numbers[f"mask_{name}"] == 1)


def test_brain_and_eyes_are_the_original_ones(numbers: dict[str, np.ndarray]) -> None:
    brain, eyes = brain_and_eyes(torch.from_numpy(numbers["probs"]), default_thresholds(3))
    np.testing.assert_array_equal(brain.numpy(), numbers["fetal_brain"] == 1)
    np.testing.assert_array_equal(eyes.numpy(), numbers["fetal_eyes"] == 1)


def test_f16_a_model_of_two_classes_has_its_thresholds() -> None:
    assert default_thresholds(2) == (0.9, 0.8)
    assert default_thresholds(5) == (0.9, 0.8, -1.0, -1.0, -1.0)
    probabilities = torch.tensor([0.05, 0.95]).view(2, 1, 1, 1).expand(2, 3, 3, 3)
    assert (classify(probabilities, default_thresholds(2)) == 1).all()
    with pytest.raises(ConfigError, match="3 thresholds were given for 2 classes"):
        classify(probabilities, default_thresholds(3))


def test_f26_thresholds_leak_into_the_last_class_but_never_out_of_the_object() -> None:
    leaking = torch.tensor([0.85, 0.10, 0.05]).view(3, 1, 1, 1)
    assert int(classify(leaking, default_thresholds(3))) == 2
    draw = torch.Generator().manual_seed(0)
    probabilities = torch.softmax(4 * torch.randn(3, 12, 12, 12, generator=draw), 0)
    mask = classify(probabilities, default_thresholds(3)) == 1
    assert mask.any()
    assert torch.equal(mask, probabilities[1] > 0.8)


def test_components_follow_their_connectivity_and_ties_go_to_the_first() -> None:
    mask = torch.zeros(6, 6, 6, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 1, 0] = True  # joined by an edge only
    mask[4, 4, 4] = True
    assert component_count(mask) == 3
    assert component_count(mask, connectivity=18) == 2
    assert largest_component(mask).nonzero().tolist() == [[0, 0, 0]]
    assert int(largest_component(mask, connectivity=18).sum()) == 2
    assert not largest_component(torch.zeros(3, 3, 3, dtype=torch.bool)).any()


def test_center_and_distance_to_the_border() -> None:
    mask = torch.zeros(8, 8, 8, dtype=torch.bool)
    mask[2:4, 3:6, 4:8] = True
    assert center_of_mask(mask).tolist() == [2.5, 4.0, 5.5]
    everywhere = torch.ones_like(mask)
    assert voxels_to_border(mask, everywhere) == 0
    mask[..., 7] = False
    assert voxels_to_border(mask, everywhere) == 1
