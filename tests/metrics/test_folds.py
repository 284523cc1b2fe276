from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError, InputError
from equivox.metrics.folds import grouped_folds, require_classes, require_distinct, require_no_leakage


def test_groups_stay_together_and_folds_are_alike(generator: torch.Generator) -> None:
    groups = [f"p{index // 2}" for index in range(80)]
    ages = torch.rand(40, generator=generator).repeat_interleave(2) * 60 + 20
    folds = grouped_folds(groups, ages, count=5, generator=torch.Generator().manual_seed(1))
    require_no_leakage(folds, groups, what="these folds")
    assert torch.bincount(folds).tolist() == [16] * 5
    means = torch.stack([ages[folds == fold].mean() for fold in range(5)])
    unsorted = torch.stack([part.mean() for part in ages.view(40, 2)[torch.randperm(40, generator=generator)].split(8)])
    assert float(means.std()) < 2.0 < float(unsorted.std())


def test_every_fold_gets_every_class() -> None:
    labels = torch.tensor([0.0] * 20 + [1.0] * 5)
    groups = list(range(25))
    for seed in range(20):
        folds = grouped_folds(groups, labels, count=5, classes=True, generator=torch.Generator().manual_seed(seed))
        require_classes(folds, labels.long(), ["CN", "AD"])


def test_folds_depend_on_the_seed_alone() -> None:
    groups, targets = list(range(30)), torch.arange(30.0)
    first, again, other = (
        grouped_folds(groups, targets, count=3, generator=torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_leak_stops_with_the_person_s_name() -> None:
    with pytest.raises(InputError, match="fold0 leaks: sub-02 lies in fold 1 and in fold 0"):
        require_no_leakage(torch.tensor([0, 1, 0]), ["sub-01", "sub-02", "sub-02"], what="fold0")
    with pytest.raises(InputError, match="a and c are the same image under two people"):
        require_distinct(["x", "y", "x"], ["A", "B", "C"], ["a", "b", "c"])
    require_distinct(["x", "x"], ["A", "A"], ["a", "b"])  # one person's scan, twice: no leak


def test_a_fold_with_one_class_stops() -> None:
    folds = torch.tensor([0, 0, 1, 1])
    with pytest.raises(InputError, match=r"fold 0 holds one class alone \(CN\)"):
        require_classes(folds, torch.tensor([0, 0, 0, 1]), ["CN", "AD"])
    with pytest.raises(InputError, match=r"leaves to train on one class alone \(CN\)"):
        require_classes(folds, torch.tensor([0, 1, 0, 0]), ["CN", "AD"])


def test_too_few_people_for_the_folds() -> None:
    one = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match=r"there are 2 people \(groups\) and 5 folds"):
        grouped_folds(["a", "a", "b"], torch.zeros(3), count=5, generator=one)
    with pytest.raises(ConfigError, match="needs 2 or more"):
        grouped_folds(["a", "b"], torch.zeros(2), count=1, generator=one)
