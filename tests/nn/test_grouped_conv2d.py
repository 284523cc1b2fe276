from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional

from equivox.nn.grouped_conv2d import grouped_conv2d


@pytest.mark.parametrize("outside", [1, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, 2, 2)])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_the_librarys_grouped_convolution(
    outside: int, stride: int, padding: int, dilation: int, biased: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    field = torch.randn(2, 12, 17, 15, generator=draw, dtype=torch.float64)
    filters = torch.randn(4 * outside, 3, 5, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4 * outside, generator=draw, dtype=torch.float64) if biased else None
    expected = functional.conv2d(field, filters, bias, stride, padding, dilation, 4)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = grouped_conv2d(field, filters, bias, stride, padding, dilation, 4)
        assert torch.allclose(found, expected, atol=1e-12)
    first, second = (
        torch.autograd.grad(one.square().sum(), filters)[0]
        for one in (expected, grouped_conv2d(field, filters, bias, stride, padding, dilation, 4))
    )
    assert torch.allclose(first, second, atol=1e-10)
