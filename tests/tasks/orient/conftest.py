"""A small particle, stacks of its pictures in several layouts, and a little trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.formats.mrc import write_mrc
from equivox.formats.star import make_block, write_star
from equivox.geometry.euler_relion import relion_from_matrix
from equivox.geometry.rotations import random_rotations
from equivox.simulate.point_particle import PointParticle, project_points


@dataclass(frozen=True)
class MadeStack:
    """A written stack with its table and the truth."""

    table: Path
    stack: Path
    rotations: torch.Tensor
    shifts_angstrom: torch.Tensor


@pytest.fixture(scope="session")
def particle() -> PointParticle:
    """Twelve points without symmetry, within 32 Å."""
    draw = torch.Generator().manual_seed(4)
    points = torch.randn(12, 3, generator=draw) * torch.tensor([15.0, 10.0, 7.0])
    return PointParticle(points - points.mean(0), torch.rand(12, generator=draw) + 0.5, 4.0)


MakeStack = Callable[..., MadeStack]


@pytest.fixture
def make_stack(particle: PointParticle) -> MakeStack:
    """``make_stack(folder, count=12, ...)`` writes particles.mrcs and particles.star."""

    def make(
        folder: Path,
        *,
        count: int = 12,
        box: int = 40,
        pixel: float = 2.0,
        noise: float = 0.05,
        dark: bool = False,
        header_pixel: float | None = None,
        shift: float = 0.0,
        seed: int = 1,
    ) -> MadeStack:
        draw = torch.Generator().manual_seed(seed)
        rotations = random_rotations(count, generator=draw)
        shifts = (torch.rand(count, 2, generator=draw) * 2.0 - 1.0) * shift
        # an even box has its centre on pixel n / 2: half a pixel beyond the middle
        beyond = 0.5 if box % 2 == 0 else 0.0
        images = project_points(
            particle, rotations, side=box, pixel_size_angstrom=pixel, shifts_px=shifts / pixel + beyond
        )
        images = images / images.std() + noise * torch.randn(images.shape, generator=draw)
        folder.mkdir(parents=True, exist_ok=True)
        stack = folder / "particles.mrcs"
        write_mrc(
            stack, (images * (-1.0 if dark else 1.0)).numpy().astype(np.float32),
            pixel_size_angstrom=pixel if header_pixel is None else header_pixel,
        )  # fmt: skip
        angles = relion_from_matrix(rotations).numpy()
        optics = {
            "rlnOpticsGroupName": ["group one"], "rlnOpticsGroup": [1], "rlnImagePixelSize": [pixel],
            "rlnImageSize": [box], "rlnImageDimensionality": [2],
        }  # fmt: skip
        rows = {
            "rlnImageName": [f"{index + 1:06d}@particles.mrcs" for index in range(count)],
            "rlnOpticsGroup": [1] * count,
            "rlnAngleRot": angles[:, 0].tolist(), "rlnAngleTilt": angles[:, 1].tolist(),
            "rlnAnglePsi": angles[:, 2].tolist(),
            "rlnOriginXAngst": (-shifts[:, 0]).tolist(), "rlnOriginYAngst": (-shifts[:, 1]).tolist(),
            "ourUnknownColumn": [f"kept text {index}" for index in range(count)],
        }  # fmt: skip
        table = folder / "particles.star"
        blocks = [make_block("optics", optics, version=30001), make_block("particles", rows, version=30001)]
        write_star(table, blocks)
        return MadeStack(table, stack, rotations, shifts)

    return make


@pytest.fixture(scope="session")
def little_model(tmp_path_factory: pytest.TempPathFactory, particle: PointParticle) -> Path:
    """A model folder of a little network that has seen a few pictures: runs, not good."""
    from equivox.run.sampling import group_samples
    from equivox.tasks.orient.config import OrientTraining
    from equivox.tasks.orient.samples import SimulatedPictures
    from equivox.tasks.orient.train_course import OrientCourse
    from equivox.weights.folder import write_model_folder

    settings = little_settings()
    course = OrientCourse(settings, seed=0)
    optimizer = course.optimizer()
    samples = SimulatedPictures(particle, settings.picture, settings.simulation, seed=0, training=True)
    (batch,) = group_samples([samples.sample(0, index) for index in range(len(samples))])
    for _ in range(6):
        optimizer.zero_grad()
        course.training_values(batch)["loss"].mean().backward()
        optimizer.step()
    assert isinstance(settings, OrientTraining)
    folder = tmp_path_factory.mktemp("orient") / "little"
    write_model_folder(
        folder, name="little", task="orient", behaviour="equivox", networks={"orientation": settings.network()},
        weights={"orientation": course.network.state_dict()}, card="little", certificate={"none": True},
        license_text="CC0", extra={"input": settings.picture.as_dict(), "output": {"temperature": 1.5}},
    )  # fmt: skip
    return folder


def little_settings():  # type: ignore[no-untyped-def]
    """A recipe that takes seconds."""
    from equivox.tasks.orient.config import OrientTraining

    return OrientTraining().with_values(
        side=25, pixel_size_angstrom=3.0, coarse_channels=(3, 4), fine_channels=(3, 4), features=8, particles=40,
        validation=20, epochs=2, batch_size=20, shift_angstrom=4.0, shift=True, snr=(1.0, 4.0),
    )  # fmt: skip
