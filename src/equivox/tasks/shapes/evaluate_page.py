"""An evaluation of a classifier as a page and as lines for a terminal."""

from __future__ import annotations

from equivox.report.class_tables import render_classifier_page, turned_charts
from equivox.report.page import Chart, Table, TableRow
from equivox.report.shape_charts import AngleCurve
from equivox.tasks.shapes.evaluate import Evaluation
from equivox.tasks.shapes.rotation_report import RotationReport


def render_evaluation(evaluation: Evaluation) -> str:
    """HTML of the report."""
    charts: list[Chart] = []
    tables: list[Table] = []
    if evaluation.rotations is not None:
        charts += _rotation_charts(evaluation, evaluation.rotations)
        tables += [_orientation_table(evaluation.rotations), _curve_table(evaluation.rotations)]
    return render_classifier_page(
        subtitle=f"Model {evaluation.model['name']} on {evaluation.data}, split {evaluation.config.split}",
        facts=(
            ("accuracy", f"{evaluation.accuracy:.3f}"),
            ("balanced", f"{evaluation.balanced_accuracy:.3f}"),
            ("objects", str(len(evaluation.ids))),
            ("classes", str(len(evaluation.classes))),
            ("majority class", f"{evaluation.majority:.3f}"),
        ),
        summary=_summary_rows(evaluation),
        tables=tables,
        charts=charts,
        classes=evaluation.classes,
        counts=evaluation.counts,
        shown="Objects as they lie",
        what="objects",
        one="an object",
        warnings=evaluation.notes,
    )


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What a terminal shows."""
    lines = [f"{label}: {value}" for label, value in _summary_rows(evaluation)]
    if evaluation.rotations is not None:
        lines += [
            f"{one.name}: accuracy {one.accuracy:.3f}, change of the logits {one.change:.2g}"
            for one in evaluation.rotations.orientations
        ]
    return lines


def _summary_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    rows = [
        ("objects", str(len(evaluation.ids))),
        ("accuracy", f"{evaluation.accuracy:.4f}"),
        ("balanced accuracy", f"{evaluation.balanced_accuracy:.4f}"),
        ("share of the largest class", f"{evaluation.majority:.4f}"),
    ]
    if evaluation.auc is not None:
        rows.append(("area under the ROC curve", f"{evaluation.auc:.4f}"))
    if evaluation.retrieval is not None:
        for name, found in (("micro", evaluation.retrieval.micro), ("macro", evaluation.retrieval.macro)):
            rows += [
                (f"{name} P@N", f"{found.P:.4f}"),
                (f"{name} R@N", f"{found.R:.4f}"),
                (f"{name} mAP", f"{found.AP:.4f}"),
            ]
        rows.append(("micro + macro mAP", f"{evaluation.retrieval.score:.4f}"))
    return rows


def _rotation_charts(evaluation: Evaluation, report: RotationReport) -> list[Chart]:
    floors = [point.floor for point in report.curve]
    curve = AngleCurve(
        angle_deg=tuple(point.angle_deg for point in report.curve),
        change=tuple(point.change for point in report.curve),
        floor=None if None in floors else tuple(floor for floor in floors if floor is not None),
        accuracy=tuple(point.accuracy for point in report.curve),
    )
    return turned_charts(
        [(one.name, one.accuracy) for one in report.orientations], curve, majority=evaluation.majority,
        count=report.objects, what="objects", how=f"{report.curve_objects} objects, each about its own random axis.",
    )  # fmt: skip


def _orientation_table(report: RotationReport) -> Table:
    rows = tuple(
        TableRow(
            (
                one.name,
                str(one.draws),
                f"{one.accuracy:.4f}",
                "–" if one.spread is None else f"{one.spread:.4f}",
                f"{one.worst:.4f}",
                f"{one.balanced_accuracy:.4f}",
                f"{one.change:.2e}",
            )
        )
        for one in report.orientations
    )
    header = ("orientation", "draws", "accuracy", "SD over draws", "worst draw", "balanced", "change of logits")
    return Table("By orientation", header, rows, note=f"{report.objects} objects, each in so many orientations.")


def _curve_table(report: RotationReport) -> Table:
    rows = tuple(
        TableRow(
            (
                f"{point.angle_deg:g}",
                f"{point.accuracy:.4f}",
                f"{point.change:.2e}",
                "–" if point.floor is None else f"{point.floor:.2e}",
            )
        )
        for point in report.curve
    )
    note = f"{report.curve_objects} objects. Resampling alone: there and back again; points turn exactly and have none."
    return Table("By angle", ("angle [°]", "accuracy", "change of logits", "resampling alone"), rows, note=note)
