from __future__ import annotations

import torch
from torch.testing import assert_close

from equivox.metrics.segmentation import dice_coefficient, dice_of_decision, one_hot


def test_dice_of_half_overlap_is_one_half() -> None:
    first, second = torch.zeros(1, 1, 4, 1, 1), torch.zeros(1, 1, 4, 1, 1)
    first[0, 0, :2] = 1.0
    second[0, 0, 1:3] = 1.0
    assert_close(dice_coefficient(first, second), torch.tensor([[0.5]]))


def test_a_class_absent_from_both_counts_as_found() -> None:
    nothing = torch.zeros(1, 1, 2, 2, 2)
    assert_close(dice_coefficient(nothing, nothing), torch.ones(1, 1))


def test_a_label_beyond_the_last_class_belongs_to_no_class() -> None:
    labels = torch.tensor([0, 1, 7]).view(1, 3, 1, 1)
    assert one_hot(labels, 2, dtype=torch.float32).flatten(2).tolist() == [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]


def test_dice_of_decision_looks_at_the_largest_logit_item_by_item(generator: torch.Generator) -> None:
    labels = torch.randint(0, 3, (2, 4, 3, 5), generator=generator)
    logits = one_hot(labels, 3, dtype=torch.float32) * 3.0
    logits[1] = logits[1].roll(1, dims=0)  # every voxel of the second item decided wrongly
    dice = dice_of_decision(logits, labels)
    assert_close(dice[0], torch.ones(3))
    assert float(dice[1].max()) < 1e-6
