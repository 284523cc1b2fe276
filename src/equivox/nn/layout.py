"""Checks and small moves of channel blocks that every layer needs. Fields are tensors (batch, channel, x, y, z)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from equivox.geometry.irreps import Irreps


def require_channels(field: Tensor, irreps: Irreps, layer: str, *, spatial: int | None = 3) -> None:
    """Raise :class:`ValueError` unless ``field`` is (batch, irreps.dimension, ...) with that many spatial axes."""
    wrong_rank = field.ndim < 2 if spatial is None else field.ndim != 2 + spatial
    if wrong_rank or field.shape[1] != irreps.dimension:
        axes = ", ".join(["batch", str(irreps.dimension), *("xyz" if spatial == 3 else ["..."])])
        hint = "; add a batch axis with field[None]" if spatial is not None and field.ndim == 1 + spatial else ""
        raise ValueError(f"{layer} for {irreps} expects a field ({axes}), got {tuple(field.shape)}{hint}.")


def merge_slices(slices: Sequence[slice]) -> list[slice]:
    """Join slices that touch."""
    merged: list[slice] = []
    for part in slices:
        if merged and merged[-1].stop == part.start:
            merged[-1] = slice(merged[-1].start, part.stop)
        else:
            merged.append(part)
    return merged


def take_channels(field: Tensor, slices: Sequence[slice]) -> Tensor:
    """The channels of some slices, without a copy when they touch each other."""
    parts = [field[:, part] for part in merge_slices(slices)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def place_channels(parts: Sequence[Tensor], slices: Sequence[Sequence[slice]], channels: int) -> Tensor:
    """Put the channels of several tensors where their slices say, zeros elsewhere; no copy if nothing is to be done."""
    if len(parts) == 1 and parts[0].shape[1] == channels:
        return parts[0]
    placed: list[tuple[int, Tensor]] = []
    for part, own in zip(parts, slices, strict=True):
        read = 0
        for where in merge_slices(own):
            width = where.stop - where.start
            placed.append((where.start, part[:, read : read + width]))
            read += width
    first = parts[0]
    pieces: list[Tensor] = []
    position = 0
    for start, piece in sorted(placed, key=lambda entry: entry[0]):
        if start > position:
            pieces.append(first.new_zeros(()).expand(first.shape[0], start - position, *first.shape[2:]))
        pieces.append(piece)
        position = start + piece.shape[1]
    if position < channels:
        pieces.append(first.new_zeros(()).expand(first.shape[0], channels - position, *first.shape[2:]))
    return torch.cat(pieces, dim=1)
