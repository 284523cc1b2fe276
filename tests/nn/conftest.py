"""Weights and fields of se3cnn, carried to our order and basis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equivox.geometry.irreps import Irreps
from equivox.geometry.wigner import coupling_tensor
from equivox.kernels.basis3d import pair_basis
from equivox.nn import SteerableConv3d

Blocks = Sequence[tuple[int, int]]


class Se3cnn:
    """Its basis (pole z, sign (-1)^l), its couplings with the signs stored from it, its order of blocks."""

    def __init__(self, harmonics: Path, couplings: Path) -> None:
        stored = np.load(harmonics)
        self._couplings = np.load(couplings)
        self.changes = {degree: stored[f"se3cnn_from_e3nn_integral_l{degree}"] for degree in range(5)}

    def to_ours(self, blocks: Blocks) -> Tensor:
        """Orthogonal matrix: theirs = matrix @ ours."""
        parts = [torch.from_numpy(self.changes[degree]) for count, degree in blocks for _ in range(count)]
        return torch.block_diag(*parts)

    def sign(self, out: int, inner: int, degree: int) -> float:
        c = self.changes
        ours = coupling_tensor(inner, degree, out).numpy()
        ours = np.einsum("ijk,ai,bj,ck->cab", ours, c[inner], c[degree], c[out]).ravel()
        stored = self._couplings[f"se3cnn_Q_out{out}_in{inner}_J{degree}"].ravel()
        overlap = float((ours * stored).sum()) / float(np.linalg.norm(ours) * np.linalg.norm(stored))
        assert abs(abs(overlap) - 1) < 1e-10
        return float(np.sign(overlap))

    def load(self, conv: SteerableConv3d, weight: np.ndarray, blocks_in: Blocks, blocks_out: Blocks) -> None:
        """Put flat weights into a layer whose gates stand right after the scalars, not last."""
        first: dict[int, int] = {}  # rows of our block of that degree that are taken
        place = []
        for count, degree in blocks_out:
            place.append(first.get(degree, 0))
            first[degree] = first.get(degree, 0) + count
        assert conv.irreps_out == Irreps([(count, f"{degree}") for degree, count in sorted(first.items())])
        own = conv.weight.detach().clone()
        read = 0
        for (count_out, out), row in zip(blocks_out, place, strict=True):
            block_out = [irrep.degree for _, irrep in conv.irreps_out].index(out)
            for block_in, (count_in, inner) in enumerate(blocks_in):
                term = next(t for t in conv.plan.pairs if (t.block_in, t.block_out) == (block_in, block_out))
                labels = pair_basis(inner, out, term.degrees, conv.grid, conv.radial, True).labels
                signs = torch.tensor([self.sign(out, inner, degree) for degree, _ in labels], dtype=own.dtype)
                size = count_out * count_in * term.elements
                part = torch.from_numpy(weight[read : read + size]).view(count_out, count_in, -1) * signs
                own[term.weight_slices[0]].view(-1, count_in, term.elements)[row : row + count_out] = part
                read += size
        assert read == len(weight) == own.numel()
        with torch.no_grad():
            conv.weight.copy_(own)


@pytest.fixture(scope="session")
def se3cnn(fixture_path: Callable[[str], Path]) -> Se3cnn:
    return Se3cnn(fixture_path("steerable/spherical_harmonics.npz"), fixture_path("steerable/wigner_3j.npz"))
