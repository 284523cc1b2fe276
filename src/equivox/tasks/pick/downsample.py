"""Down-sampling by cropping the Fourier transform: phases kept, so that sample 0 stays where it is.

A position then scales without an offset: ``x_full = x_small * (N / n)`` (projection2d.md 8.8; binning by averages
would put centres at ``(x_small + 1/2) s - 1/2``). The image may lie on disk: rows are read in blocks, one axis after
the other is transformed, and only what is kept of the spectrum is held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ROWS_AT_ONCE = 256
"""Rows that are read and transformed together."""


def resample_size(count: int, factor: float) -> int:
    """Samples along an axis of ``count`` samples whose step becomes ``factor`` times longer; at least 1.

    Examples
    --------
    >>> resample_size(4096, 8.0), resample_size(465, 2.0)
    (512, 232)
    """
    return max(1, round(count / factor))


def fourier_resample(
    image: Any,
    size: tuple[int, int],
    *,
    clean: Callable[[Float[Tensor, "rows x"]], Float[Tensor, "rows x"]] | None = None,
) -> Float[Tensor, "y x"]:
    """Resample an image to ``size`` (rows, columns) by cropping or padding its Fourier transform, axis by axis.

    Parameters
    ----------
    image
        Array (y, x) of any numeric type, memory-mapped or not; only blocks of rows are converted at a time.
    size
        Rows and columns wanted. A larger size pads the spectrum with zeros: the same band-limited image, finer.
    clean
        Applied to every block of rows as float32 before it is transformed (to cut hot pixels, for example).

    Returns
    -------
    float32; the mean is kept. Sample 0 stays at position 0, along both axes, also at odd sizes.

    Raises
    ------
    ValueError
        If the image is not two-dimensional or a size is not positive.
    """
    if len(image.shape) != 2 or 0 in image.shape:
        raise ValueError(f"expected an image (y, x) with pixels, got the shape {tuple(image.shape)}")
    if min(size) < 1:
        raise ValueError(f"expected positive sizes, got {size}")
    rows, columns = int(image.shape[0]), int(image.shape[1])
    kept = min(columns, size[1])
    half = kept // 2 + 1
    spectrum = torch.empty(rows, half, dtype=torch.complex64)
    for start in range(0, rows, ROWS_AT_ONCE):
        block = as_float32(image[start : start + ROWS_AT_ONCE])
        spectrum[start : start + ROWS_AT_ONCE] = torch.fft.rfft(block if clean is None else clean(block), dim=1)[
            :, :half
        ]
    if kept < columns and kept % 2 == 0:
        # the last frequency of an even size stands for both signs: their mean, which is the real part of the alias
        spectrum[:, -1] = spectrum[:, -1].real.to(spectrum.dtype)
    elif kept < size[1] and kept % 2 == 0:
        spectrum[:, -1] *= 0.5
    spectrum = _crop_rows(torch.fft.fft(spectrum, dim=0), size[0])
    result = torch.fft.irfft(torch.fft.ifft(spectrum, dim=0), n=size[1], dim=1)
    return result * (size[0] * size[1] / (rows * columns))


def as_float32(block: Any) -> Float[Tensor, "rows x"]:
    """A block of an array as float32 in the machine's byte order; a copy that may be written to."""
    return torch.from_numpy(np.array(block, dtype=np.float32, order="C", copy=True))


def _crop_rows(spectrum: Tensor, count: int) -> Tensor:
    """Keep, or fill with zeros, the frequencies of a full transform along the first axis."""
    rows = spectrum.shape[0]
    if rows == count:
        return spectrum
    kept = min(rows, count)
    positive, negative = (kept + 1) // 2, kept // 2
    result = spectrum.new_zeros(count, spectrum.shape[1])
    result[:positive] = spectrum[:positive]
    if negative:
        result[count - negative :] = spectrum[rows - negative :]
    if kept % 2 == 0 and count < rows:
        edge = negative
        result[count - edge] = 0.5 * (spectrum[edge] + spectrum[rows - edge])
    elif kept % 2 == 0 and count > rows:
        edge = negative
        result[edge] = result[count - edge] = 0.5 * spectrum[edge]
    return result
