from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.geometry.rotations import random_rotations
from equivox.metrics.segmentation import dice_coefficient, one_hot
from equivox.tasks.pose.losses import rotation_loss, segmentation_loss


@pytest.fixture
def published(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/08_losses.npz")) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files if file[name].dtype.kind in "fi"}


def test_rotation_loss_and_its_gradient_hold_the_published_numbers(published: dict[str, Tensor]) -> None:
    field = published["rot_output"].requires_grad_()
    loss = rotation_loss(field, published["rot_target"])
    assert_close(loss.pseudovector.mean(), published["pseudovector_loss"], atol=1e-5, rtol=0)
    assert_close(loss.vectors.mean(), published["vector_loss"], atol=1e-5, rtol=0)
    assert_close(loss.total.mean(), published["total_rotation_loss"], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(loss.total.mean(), field)
    assert_close(gradient, published["rot_grad_output"], atol=1e-5, rtol=0)


def test_segmentation_loss_and_its_gradient_hold_the_published_numbers(published: dict[str, Tensor]) -> None:
    logits, labels = published["seg_logits"].requires_grad_(), published["seg_labels"][:, 0]
    weight = float(published["dice_weight"])
    loss = segmentation_loss(logits, labels, class_weights=published["class_weights"], dice_weight=weight)
    overlap = dice_coefficient(logits.softmax(1), one_hot(labels, 3, dtype=torch.float32))
    assert_close(overlap[:, 1:], published["seg_dice_coef"], atol=1e-5, rtol=0)
    assert_close(loss.cross_entropy.mean(), published["seg_cross_entropy"], atol=1e-5, rtol=0)
    assert_close(loss.dice, published["seg_dice_weighted"], atol=1e-5, rtol=0)
    assert_close(loss.total.mean(), published["seg_total"], atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(loss.total.mean(), logits)
    assert_close(gradient, published["seg_grad_logits"], atol=1e-5, rtol=0)


def test_rotation_loss_is_blind_to_the_sign_of_the_pseudovector_only(generator: torch.Generator) -> None:
    head_from_image = random_rotations(2, generator=generator).float()
    perfect = head_from_image.flatten(1)[..., None, None, None].repeat(1, 1, 2, 2, 2)
    mirrored, flipped = perfect.clone(), perfect.clone()
    mirrored[:, :3] *= -1.0
    flipped[:, 3:6] *= -1.0
    assert float(rotation_loss(perfect, head_from_image).total.max()) < 1e-3
    assert float(rotation_loss(mirrored, head_from_image).total.max()) < 1e-3
    assert float(rotation_loss(flipped, head_from_image).total.min()) > 0.3


def test_losses_of_a_batch_are_those_of_its_items(published: dict[str, Tensor]) -> None:
    whole = rotation_loss(published["rot_output"], published["rot_target"]).total
    single = torch.cat(
        [rotation_loss(published["rot_output"][i : i + 1], published["rot_target"][i : i + 1]).total for i in range(3)]
    )
    assert_close(whole, single)
    logits, labels, weights = published["seg_logits"], published["seg_labels"][:, 0], published["class_weights"]
    together = segmentation_loss(logits, labels, class_weights=weights).total
    apart = [segmentation_loss(logits[i, None], labels[i, None], class_weights=weights).total for i in range(2)]
    assert_close(together, torch.cat(apart))
