"""Classification measures equal scikit-learn's, and say what they cannot answer."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from equivox.errors import InputError, MissingExtraError
from equivox.metrics.classification import (
    accuracy,
    balanced_accuracy,
    class_recalls,
    confusion,
    logit_change,
    logit_spread,
    roc_auc,
)

seeds = st.integers(0, 2**31 - 1)


@given(seed=seeds, classes=st.integers(2, 6), items=st.integers(2, 40))
def test_equal_to_scikit_learn(seed: int, classes: int, items: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (items,), generator=draw)
    predicted = torch.randint(classes, (items,), generator=draw)
    counts = confusion(labels, predicted, classes=classes)
    assert counts.tolist() == metrics.confusion_matrix(labels, predicted, labels=range(classes)).tolist()
    assert accuracy(counts) == pytest.approx(metrics.accuracy_score(labels, predicted))
    recalls = [
        float((predicted[labels == k] == k).double().mean()) for k in range(classes) if bool((labels == k).any())
    ]
    assert balanced_accuracy(counts) == pytest.approx(sum(recalls) / len(recalls))


def test_area_under_the_curve() -> None:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(3, (60,), generator=draw)
    probabilities = torch.rand(60, 3, generator=draw).softmax(dim=1)
    expected = metrics.roc_auc_score(labels, probabilities.double(), multi_class="ovr")
    assert roc_auc(labels, probabilities) == pytest.approx(expected)
    two = labels.clamp_max(1)
    assert roc_auc(two, probabilities[:, :2]) == pytest.approx(metrics.roc_auc_score(two, probabilities[:, 1]))


def test_what_has_no_answer() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    counts = confusion(nothing, nothing, classes=3)
    assert math.isnan(accuracy(counts))
    assert math.isnan(balanced_accuracy(counts))
    assert class_recalls(counts).isnan().all()
    with pytest.raises(InputError, match="0 to 1"):
        confusion(torch.tensor([0, 2]), torch.tensor([0, 1]), classes=2)
    with pytest.raises(InputError, match="2 labels and 1"):
        confusion(torch.tensor([0, 1]), torch.tensor([0]), classes=2)
    with pytest.raises(InputError, match="one class"):
        roc_auc(torch.tensor([1, 1]), torch.rand(2, 2))
    with pytest.raises(InputError, match="NaN"):
        roc_auc(torch.tensor([0, 1]), torch.full((2, 2), torch.nan))


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match=r"equivox\[shapes\]"):
        roc_auc(torch.tensor([0, 1]), torch.rand(2, 2))


def test_the_change_of_logits_is_told_in_units_of_their_spread() -> None:
    before = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    assert logit_spread(before) == pytest.approx(math.sqrt(5.0))  # variances 2 and 8
    assert logit_spread(before[:1]) == 1.0
    assert logit_spread(torch.ones(3, 2)) == 1e-12
    assert logit_change(before + 3.0, before, 2.0) == pytest.approx(1.5)
    draws = torch.stack([before, before + 4.0])
    assert logit_change(draws, before, 1.0) == pytest.approx(math.sqrt(8.0))
