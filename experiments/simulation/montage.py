"""Real and simulated stacks side by side, rows mixed: the picture that a person looks at.

python experiments/simulation/montage.py --data ../shared/data/fetal --out docs/images/simulation_montage.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy
from measure import Case, real_cases, simulated_cases
from scipy import ndimage

from equivox.simulate.stack_config import StackSimulation

matplotlib.use("Agg")
from matplotlib import pyplot


def planes(case: Case) -> list[tuple[numpy.ndarray, float]]:
    """Three planes of the stack through the brain's centre, then sagittal, coronal and axial in the head's frame."""
    index = (
        numpy.round(numpy.linalg.inv(case.affine[:3, :3]) @ (case.center_mm - case.affine[:3, 3]))
        .astype(int)
        .clip(0, numpy.array(case.image.shape) - 1)
    )
    aspect = case.spacing[2] / case.spacing[0]
    level = float(numpy.median(case.image[case.brain]))
    image = case.image / level
    found = [(image[:, :, index[2]], 1.0), (image[:, index[1], :], aspect), (image[index[0]], aspect)]
    axis = numpy.arange(-72.0, 72.1, 1.5)
    first, second = numpy.meshgrid(axis, axis, indexing="ij")
    for plane in ((None, 0, 1), (0, None, 1), (0, 1, None)):
        head = numpy.stack([numpy.zeros_like(first) if one is None else (first, second)[one] for one in plane], -1)
        world = head @ case.rotation.T + case.center_mm
        place = (world - case.affine[:3, 3]) @ numpy.linalg.inv(case.affine[:3, :3]).T
        values = ndimage.map_coordinates(image, place.reshape(-1, 3).T, order=1).reshape(first.shape)
        found.append((values, 1.0))
    return found


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/fetal"))
    parser.add_argument("--rows", type=int, default=6, help="of each kind")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="real stacks from this one on")
    parser.add_argument("--dpi", type=int, default=55)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    step = max(23 // arguments.rows, 1)
    real = list(real_cases(arguments.data, first=arguments.first, step=step))
    made = list(simulated_cases(arguments.rows, StackSimulation(), seed=arguments.seed))
    cases = [one for pair in zip(real[: arguments.rows], made, strict=True) for one in pair]
    figure, axes = pyplot.subplots(len(cases), 6, figsize=(17, 2.5 * len(cases)))
    for row, case in zip(axes, cases, strict=True):
        for axis, (values, aspect) in zip(row, planes(case), strict=True):
            axis.imshow(values.T, cmap="gray", vmin=0, vmax=2.2, aspect=aspect, origin="lower")
            axis.axis("off")
        row[0].set_title("real" if case.name.startswith("fet") else "simulated", fontsize=14, loc="left")
    pyplot.tight_layout(pad=0.4)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=arguments.dpi)


if __name__ == "__main__":
    main()
