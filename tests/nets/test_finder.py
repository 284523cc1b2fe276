from __future__ import annotations

import pytest
import torch

from equivox.nets.finder import FinderNet, cells_to_voxels, local_contrast, squash, voxels_to_cells


def test_cubes_become_cells_and_come_back(generator: torch.Generator) -> None:
    field = torch.randn(2, 3, 4, 6, 8, generator=generator)
    cells = voxels_to_cells(field)
    assert cells.shape == (2, 24, 2, 3, 4)
    assert torch.equal(cells[1, :8, 1, 2, 3], field[1, 0, 2:4, 4:6, 6:8].reshape(-1))
    assert torch.equal(cells_to_voxels(cells), field)


def test_squash_keeps_order_and_bounds() -> None:
    values = torch.tensor([-1.0, 0.0, 0.5, 1.0, 100.0]).reshape(1, 1, 1, 1, 5)
    squashed = squash(values).flatten().tolist()
    assert squashed[:3] == [0.0, 0.0, 0.5]
    assert squashed == sorted(squashed)
    assert squashed[-1] < 1


def test_contrast_ignores_what_lies_outside_the_field_of_view(generator: torch.Generator) -> None:
    image = torch.rand(1, 1, 16, 16, 16, generator=generator) + 0.5
    valid = torch.ones_like(image)
    valid[..., 8:] = 0
    changed = torch.where(valid > 0, image, image * 50)
    assert torch.equal(local_contrast(image, valid, 5), local_contrast(changed, valid, 5))
    assert float(local_contrast(image, valid, 5)[..., 8:].abs().max()) == 0
    assert float(local_contrast(image, valid, 5).abs().max()) <= 3


def test_contrast_finds_an_edge_and_not_the_level() -> None:
    image = torch.full((1, 1, 24, 24, 24), 0.3)
    image[:, :, 12:] = 0.6
    contrast = local_contrast(image, torch.ones_like(image), 5)[0, 0, :, 12, 12]
    assert abs(float(contrast[0])) < 1e-4
    assert float(contrast[13]) > 0.5
    assert float(contrast[10]) < -0.5


def test_every_voxel_gets_a_logit_whatever_the_batch(generator: torch.Generator) -> None:
    network = FinderNet(levels=2, features=4).eval()
    image = torch.rand(3, 1, 8, 12, 4, generator=generator)
    valid = torch.ones_like(image)
    together = network(image, valid)
    assert together.shape == image.shape
    alone = torch.cat([network(image[i : i + 1], valid[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_divisor_is_what_the_forward_pass_needs() -> None:
    network = FinderNet(levels=3, features=4).eval()
    assert network.divisor == 8
    good = torch.zeros(1, 1, 16, 8, 8)
    assert network(good, good).shape == good.shape
    bad = torch.zeros(1, 1, 12, 8, 8)
    with pytest.raises(ValueError, match="multiple of"):
        network(bad, bad)


def test_even_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        FinderNet(contrast_cells=4)
