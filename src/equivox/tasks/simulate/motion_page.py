"""The page of `equivox simulate motion`."""

from __future__ import annotations

import torch

from equivox.geometry.space import sample_at
from equivox.report.coverage_chart import CoverageMap, coverage_bars, coverage_maps
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.simulate.slices import Orientation, coverage
from equivox.tasks.simulate.motion import MotionRun
from equivox.tasks.simulate.motion_config import METHOD_WORDS, MotionConfig
from equivox.tasks.simulate.motion_stack import Scene, Stack

PLANES: dict[Orientation, tuple[int, int]] = {"axial": (1, 2), "coronal": (1, 2), "sagittal": (0, 1)}
"""Head axes across and up of the plane that a stack's map shows: the slices' normal lies in it."""
AXIS_NAMES = ("left to right", "posterior to anterior", "inferior to superior")
MAP_STEP_MM = 1.0


def render_motion_page(run: MotionRun, scene: Scene, config: MotionConfig, *, seed: int) -> str:
    """HTML of ``report.html``: coverage and obliqueness as table, bars and maps."""
    rows = run.table()
    cells = [
        TableRow(
            (
                row["orientation"], row["method"], str(row["slices"]), f"{row['covered_percent']:.1f}",
                f"{row['gap_percent']:.1f}", f"{row['twice_percent']:.1f}", f"{row['oblique_mean_deg']:.1f}",
                f"{row['oblique_max_deg']:.1f}", f"{row['error_median_deg']:.1f}", str(row["without_estimate"]),
            )
        )
        for row in rows
    ]  # fmt: skip
    header = (
        "orientation", "method", "slices", "covered [%]", "gap [%]", "twice [%]", "oblique, mean [°]", "largest [°]",
        "pose error, median [°]", "no answer",
    )  # fmt: skip
    words = tuple(TableRow((method, METHOD_WORDS[method])) for method in config.methods)
    maps = [coverage_map(scene, stack, config) for stack in run.stacks]
    return render_evaluation_page(
        EvaluationPage(
            title="What steered slices cover of a moving head",
            notice="A simulation: the whole image moves rigidly, and each slice is taken in an instant.",
            subtitle=f"{scene.volume.name}, seed {seed}",
            facts=(
                ("slices", f"{config.thickness_mm:g} mm"),
                ("navigator", f"{config.navigator_mm:g} mm"),
                ("delay", f"{config.delay_s:g} of {config.repetition_s:g} s"),
            ),
            tables=(
                Table("Stacks", header, tuple(cells), text_columns=(0, 1)),
                Table("Methods", ("method", "slices are steered by"), words, text_columns=(0, 1)),
            ),
            charts=(
                Chart("Coverage and obliqueness", as_data_uri(coverage_bars(rows), "image/svg+xml")),
                Chart(
                    "How often each place was imaged",
                    as_data_uri(coverage_maps(maps), "image/svg+xml"),
                    "Planes through the brain's middle, in the head's frame: red never, grey once, blue more often.",
                ),
            ),
            warnings=run.warnings,
        )
    )


def coverage_map(scene: Scene, stack: Stack, config: MotionConfig) -> CoverageMap:
    """How often the points of a plane through the brain's middle were imaged; -1 outside the brain."""
    across, up = PLANES[stack.orientation]
    low, high = scene.points_mm.amin(0) - 3.0, scene.points_mm.amax(0) + 3.0
    middle = (low + high) / 2
    first = torch.arange(float(low[across]), float(high[across]), MAP_STEP_MM, dtype=torch.float64)
    second = torch.arange(float(low[up]), float(high[up]), MAP_STEP_MM, dtype=torch.float64)
    points = middle.expand(len(second), len(first), 3).clone()
    points[..., across], points[..., up] = first[None, :], second[:, None]
    world = scene.world_from_head.apply(points)
    inside = sample_at(scene.brain, world[None], interpolation="nearest")[0, 0] > 0.5
    counts = coverage(points.flatten(0, 1), stack.head_from_slices, size=config.slice_size).reshape(inside.shape)
    return CoverageMap(
        stack.orientation,
        stack.method,
        torch.where(inside, counts, torch.full_like(counts, -1)).numpy(),
        (float(low[across]), float(high[across]), float(low[up]), float(high[up])),
        (AXIS_NAMES[across], AXIS_NAMES[up]),
    )
