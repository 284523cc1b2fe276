from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from equivox.weights.folder import write_model_folder
from equivox.weights.registry import build_network

Scans = Callable[[Path, int], list[Path]]


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained networks of a few weights that pose any volume in some 10 ms: for tests of how work is run."""
    fields: dict[str, dict[str, object]] = {
        "segment": {"architecture": "unet", "classes": 2, "levels": 2, "features": 2, "norm": "group"},
        "rotate": {"architecture": "pose_net", "poolings": 1, "kernel_size": 3, "multiplier": 1},
    }
    weights = {}
    for name, field in fields.items():
        with torch.random.fork_rng():
            torch.manual_seed(1)
            weights[name] = build_network(field).state_dict()
    folder = tmp_path_factory.mktemp("quick") / "quick"
    write_model_folder(
        folder, name="quick", task="pose", behaviour="mended", networks=fields, weights=weights, card="# quick",
        certificate={"none": 0}, license_text="Apache-2.0",
        extra={
            "input": {"voxel_size_mm": 6.0, "size": 8},
            "settings": {"rotate_size": 8, "thresholds": [-1.0, -1.0]},
        },
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def small_scans() -> Scans:
    """Write so many different volumes of 10 x 11 x 12 voxels of 4 mm, seeded, into a folder."""

    def write(folder: Path, count: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(5)
        paths = []
        for index in range(count):
            data = generator.random((10, 11, 12), dtype=np.float32) + np.linspace(0, 2, 12, dtype=np.float32)
            path = folder / f"scan-{index:02d}.nii"
            nibabel.save(nibabel.Nifti1Image(data, np.diag([4.0, 4.0, 4.0, 1.0])), path)
            paths.append(path)
        return paths

    return write
