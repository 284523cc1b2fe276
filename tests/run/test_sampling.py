from __future__ import annotations

import torch
from torch.testing import assert_close

from equivox.run.sampling import Places, group_samples


def test_samples_of_different_shapes_become_groups() -> None:
    samples = [{"x": torch.zeros(2)}, {"x": torch.ones(3)}, {"x": torch.ones(2)}]
    groups = group_samples(samples)
    assert [tuple(group["x"].shape) for group in groups] == [(2, 2), (1, 3)]
    assert_close(groups[0]["x"][1], torch.ones(2))


def test_places_follow_the_epoch_in_training_only() -> None:
    training, validation = Places(2, follows=True), Places(2, follows=False)
    for places in (training, validation):
        places.set_epoch(3)
    assert list(training) == [(3, 0), (3, 1)]
    assert list(validation) == [(0, 0), (0, 1)]
