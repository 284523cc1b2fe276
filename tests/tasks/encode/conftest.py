from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.nets.brain_encoder import BrainEncoder
from equivox.weights.folder import write_model_folder


def _brain_values(shape: tuple[int, int, int] = (44, 52, 44), step_mm: float = 4.0, seed: int = 0) -> np.ndarray:
    """A lopsided egg of 1.3 litres with smooth blobs inside: no symmetry, background 0, inside at least 1."""
    centre = [(n - 1) / 2 * step_mm for n in shape]
    x, y, z = np.meshgrid(*[np.arange(n) * step_mm - c for n, c in zip(shape, centre, strict=True)], indexing="ij")
    egg = (x / 62) ** 2 + (y / (80 + 0.08 * x)) ** 2 + (z / (62 + 0.1 * y)) ** 2 < 1
    draw = np.random.default_rng(seed)
    values = np.full(shape, 60.0)
    for _ in range(14):
        place, width = draw.uniform(-45, 45, 3), draw.uniform(12, 24)
        near = (x - place[0]) ** 2 + (y - place[1]) ** 2 + (z - place[2]) ** 2
        values += draw.uniform(-40, 70) * np.exp(-near / (2 * width**2))
    return np.where(egg, np.clip(values, 1, 250), 0).astype(np.float32)


def _save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return path


@pytest.fixture(scope="session")
def brain_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One synthetic brain at 4 mm, RAS."""
    return _save(tmp_path_factory.mktemp("brain") / "sub-one_T1w.nii.gz", _brain_values())


@pytest.fixture(scope="session")
def brain_values() -> Callable[..., np.ndarray]:
    """``brain_values(shape, step_mm, seed)``: intensities of a synthetic brain."""
    return _brain_values


@pytest.fixture(scope="session")
def save() -> Callable[..., Path]:
    """``save(path, values, affine)``: write NIfTI, 4 mm RAS by default; returns the path."""
    return _save


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained encoder of 16 voxels a side as a model folder."""
    network = BrainEncoder(16, 13.2, generator=torch.Generator().manual_seed(0))
    fields = {"architecture": "brain_encoder", "side": 16, "voxel_size_mm": 13.2}
    return write_model_folder(
        tmp_path_factory.mktemp("models") / "tiny-encoder", name="tiny-encoder", task="encode", behaviour="equivox",
        networks={"encoder": fields}, weights={"encoder": network.state_dict()}, card="card", certificate={},
        license_text="none",
    ).path  # fmt: skip
