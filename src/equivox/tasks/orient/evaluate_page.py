"""An evaluation of orientations as a page and as lines for a terminal."""

from __future__ import annotations

import math

import torch

from equivox.metrics.orientation import CHANCE_RAD
from equivox.report.orientation_charts import histogram_chart, reliability_chart, view_map
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.tasks.orient.evaluate import OrientationEvaluation
from equivox.tasks.orient.page import SVG, angles_text, coverage_rows, example_figure, view_caption

WORST = 20
"""Particles listed with the largest errors."""
NOTICE = "Errors are arcs between rotations; the poses in the table are taken as the truth, whatever their own errors."


def render_evaluation(evaluation: OrientationEvaluation) -> str:
    """HTML of the report."""
    degrees = torch.rad2deg(evaluation.reduced_rad)
    honesty, told = evaluation.honesty, evaluation.confidence.tolist()
    confidence = torch.zeros(len(evaluation.preparation.stack), dtype=evaluation.confidence.dtype)
    usable = torch.zeros(len(confidence), dtype=torch.bool)
    places = torch.tensor(evaluation.index)
    confidence[places], usable[places] = evaluation.confidence, True
    marks = (("median", float(degrees.quantile(0.5))), ("mean", float(degrees.mean())))
    charts = (
        Chart(
            "Errors",
            as_data_uri(histogram_chart(degrees.tolist(), label="error [°]", limits=(0.0, 180.0), marks=marks), SVG),
            "Arc between each answer and the truth"
            + (
                "."
                if evaluation.symmetry == "C1"
                else f", to the nearest of the poses equal under {evaluation.symmetry}."
            ),
        ),
        Chart(
            "Is the confidence honest?",
            as_data_uri(reliability_chart(honesty.confidence, honesty.share, honesty.count, told), SVG),
            f"Expected calibration error {honesty.error:.3f}.",
        ),
        Chart("Views as answered", as_data_uri(view_map(evaluation.coverage.counts.numpy()), SVG), view_caption()),
        example_figure(evaluation.preparation, confidence, usable),
    )
    page = EvaluationPage(
        title="How far the orientations are from the truth",
        notice=NOTICE,
        subtitle=f"Model {evaluation.model['name']} on {evaluation.config.particles}",
        facts=(
            ("mean error", f"{evaluation.reduced.mean_rad:.3f} rad"),
            ("median", f"{math.degrees(evaluation.reduced.median_rad):.1f}°"),
            ("within 10°", f"{evaluation.reduced.near:.1%}"),
            ("particles", str(len(evaluation.index))),
        ),
        tables=(_summary(evaluation), _worst(evaluation)),
        charts=charts,
        warnings=evaluation.notes,
    )
    return render_evaluation_page(page)


def summary_lines(evaluation: OrientationEvaluation) -> list[str]:
    """What a terminal shows."""
    return [f"{label}: {value}" for label, value in _rows(evaluation)]


def _rows(evaluation: OrientationEvaluation) -> list[tuple[str, str]]:
    reduced, plain, honesty = evaluation.reduced, evaluation.plain, evaluation.honesty
    rows = [
        ("particles", str(len(evaluation.index))),
        ("mean error", f"{reduced.mean_rad:.4f} rad ({math.degrees(reduced.mean_rad):.2f}°)"),
        ("median error", f"{reduced.median_rad:.4f} rad ({math.degrees(reduced.median_rad):.2f}°)"),
        ("within 10 degrees", f"{reduced.near:.1%}"),
    ]
    if evaluation.symmetry != "C1":
        rows.append((f"mean error without {evaluation.symmetry}", f"{plain.mean_rad:.4f} rad"))
    rows += [
        ("best constant answer", f"{evaluation.constant_rad:.4f} rad"),
        ("chance on even views", f"{CHANCE_RAD:.4f} rad (no symmetry)"),
        ("calibration error of the confidence", f"{honesty.error:.3f}"),
    ]
    if honesty.area is not None:
        rows.append(("confidence ranks right above wrong", f"{honesty.area:.3f}"))
    if evaluation.shift_error_angstrom is not None:
        rows.append(("median error of the centre", f"{evaluation.shift_error_angstrom:.2f} Å"))
    coverage = evaluation.coverage
    rows += coverage_rows(coverage.empty, coverage.counts.numel(), coverage.fullest, coverage.evenness)
    if evaluation.left_out:
        rows.append(("left out (blank or broken)", str(evaluation.left_out)))
    return rows


def _summary(evaluation: OrientationEvaluation) -> Table:
    rows = tuple(TableRow(row) for row in _rows(evaluation))
    return Table("In short", ("measure", "value"), rows, text_columns=(0, 1))


def _worst(evaluation: OrientationEvaluation) -> Table:
    order = evaluation.reduced_rad.argsort(descending=True)[:WORST].tolist()
    rows = []
    for place in order:
        error, sure = math.degrees(float(evaluation.reduced_rad[place])), float(evaluation.confidence[place])
        name, angles = evaluation.names[place], angles_text(evaluation.rotations[place])
        rows.append(TableRow((str(evaluation.index[place]), name, f"{error:.1f}", f"{sure:.2f}", angles)))
    header = ("index", "image", "error [°]", "confidence", "rot, tilt, psi")
    return Table("Largest errors", header, tuple(rows), text_columns=(1, 4))
