"""Turn an input and look whether its code turns along: E of the vectors, I of the invariants, for one scan.

E is ``|V(Qx) - V(x) Q^T| / |V(x)|``, I is ``|s(Qx) - s(x)| / |s(x)|``; both are means over rotations. Every turned
brain is sampled once from the scan's own grid. By the turns of the cube nothing is interpolated anew, so there the
errors are the network's alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotate import rotate_volume
from equivox.geometry.rotations import cube_group, geodesic_angle, random_rotations
from equivox.nets.brain_code import BrainCode, align_codes, turn_code
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import BrainSource
from equivox.tasks.encode.model import EncodeModel

CUBE_TURNS = (4, 10)
"""Which of the 24 turns of the cube are tried: a quarter or half turn and a third of a turn."""


@dataclass(frozen=True, slots=True)
class Verified:
    """How the code of one scan followed rotations.

    Parameters
    ----------
    turns
        Random rotations, uniform on SO(3).
    E
        Relative error of the polar vectors.
    E_axial
        Of the axial vectors, relative to the polar vectors' size; 0 without any.
    I
        Relative change of the invariants.
    pose_deg
        Mean error of the rotation that the two codes give.
    floor
        Relative change of the input by one more resampling: see :func:`resampling_floor`.
    E_cube, I_cube
        The same for turns of the cube, without interpolation.
    """

    turns: int
    E: float
    E_axial: float
    I: float  # noqa: E741 - the field's own letter
    pose_deg: float
    floor: float
    E_cube: float
    I_cube: float

    def as_dict(self) -> dict[str, float | int]:
        """For JSON and CSV."""
        return asdict(self)


def verify_scan(model: EncodeModel, source: BrainSource, *, turns: int, seed: int) -> Verified:
    """Measure one scan in ``turns`` random orientations and two turns of the cube."""
    still = source.sample(side=model.side)
    before = model.code([still])
    generator = generator_for(seed, "verify")
    rows = []
    for turn in random_rotations(turns, generator=generator):
        turned = source.sample(side=model.side, turn=turn)
        rows.append(
            [*code_errors(before, model.code([turned]), turn), resampling_floor(still.volume, turned.volume, turn)]
        )
    cube = [
        code_errors(before, model.code([source.sample(side=model.side, turn=turn)]), turn)
        for turn in cube_group()[list(CUBE_TURNS)]
    ]
    polar, axial, invariants, pose, floor = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    exact = torch.tensor(cube, dtype=torch.float64).amax(0).tolist()
    return Verified(turns, polar, axial, invariants, pose, floor, max(exact[:2]), exact[2])


def code_errors(before: BrainCode, after: BrainCode, turn: Float[Tensor, "3 3"]) -> list[float]:
    """E of polar and of axial vectors (both relative to the polar ones), I, and the pose's error in degrees."""
    expected = turn_code(before, turn[None])
    size = float(before.polar.norm()) or float(before.axial.norm()) or 1.0
    pose = align_codes(before, after).rotation[0].double()
    return [
        float((after.polar - expected.polar).norm()) / size,
        float((after.axial - expected.axial).norm()) / size,
        float((after.scalars - before.scalars).norm()) / max(float(before.scalars.norm()), 1e-12),
        math.degrees(float(geodesic_angle(pose, turn.double()))),
    ]


def resampling_floor(
    still: Float[Tensor, "1 x y z"], turned: Float[Tensor, "1 x y z"], turn: Float[Tensor, "3 3"]
) -> float:
    """Relative L2 difference of the working grid turned by cubic interpolation from the brain sampled turned at once.

    No network can be asked to follow better than its input does, but by averaging (soe.md 4.8).
    """
    again = rotate_volume(still[None], turn[None].to(still), interpolation="cubic")[0]
    return float((again - turned).norm() / turned.norm())
