"""Small micrographs with dark discs at known places, and a picker that was trained on them for a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equivox.formats.mrc import write_mrc

RADIUS_ANGSTROM, PIXEL_ANGSTROM = 60.0, 10.0
NETWORK: dict[str, Any] = {"architecture": "projected", "channels": [3], "kernel_sizes": [7, 7], "grid": "D4"}


def draw_micrograph(
    seed: int, *, shape: tuple[int, int] = (150, 170), count: int = 12, sign: float = -1.0, radius_px: float = 6.0
) -> tuple[np.ndarray, np.ndarray]:
    """White noise with soft discs; the image and the centres (x, y)."""
    draw = np.random.default_rng(seed)
    centers: list[tuple[float, float]] = []
    while len(centers) < count:
        x, y = draw.uniform(radius_px, shape[1] - radius_px), draw.uniform(radius_px, shape[0] - radius_px)
        if all((x - a) ** 2 + (y - b) ** 2 > (2.5 * radius_px) ** 2 for a, b in centers):
            centers.append((x, y))
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = draw.normal(0.0, 1.0, shape)
    for x, y in centers:
        apart = np.hypot(rows - y, columns - x)
        image += sign * 2.5 / (1.0 + np.exp((apart - radius_px) / 0.7))
    return (100.0 + 20.0 * image).astype(np.float32), np.array(centers)


def write_set(
    folder: Path, seeds: range, *, pixel_angstrom: float = PIXEL_ANGSTROM, sign: float = -1.0, flip: bool = False
) -> Path:
    """Micrographs ``mic_<seed>.mrc`` and ``labels.txt``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["image_name\tx_coord\ty_coord"]
    for seed in seeds:
        image, centers = draw_micrograph(seed, sign=sign)
        write_mrc(folder / f"mic_{seed}.mrc", image, pixel_size_angstrom=pixel_angstrom)
        for x, y in centers:
            lines.append(f"mic_{seed}\t{x:.2f}\t{(len(image) - 1 - y) if flip else y:.2f}")
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six micrographs and their labels."""
    return write_set(tmp_path_factory.mktemp("micrographs"), range(6))


@pytest.fixture(scope="session")
def make_set() -> Callable[..., Path]:
    """:func:`write_set`."""
    return write_set


@pytest.fixture(scope="session")
def picker(micrographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folder of a picker trained on four of the micrographs."""
    pytest.importorskip("lightning")
    from equivox.tasks.pick.config import PickSource, PickTraining
    from equivox.tasks.pick.train import TrainRun, train_picker

    out = tmp_path_factory.mktemp("trained")
    trained = train_picker(
        [
            PickSource(
                micrographs=(str(micrographs),), coordinates=(str(micrographs / "labels.txt"),),
                radius_angstrom=RADIUS_ANGSTROM,
            )
        ],
        PickTraining(
            network=NETWORK, radius_px=6.0, epochs=4, tiles_per_epoch=32, batch_size=4, tile_outputs=20, lr=0.02,
            patience=None,
        ),
        TrainRun(out=out / "small"),
    )  # fmt: skip
    assert trained.average_precision > 0.9
    return trained.model.path
