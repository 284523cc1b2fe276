"""An evaluation of a classifier of pictures as a page and as lines for a terminal."""

from __future__ import annotations

from equivox.report.class_tables import render_classifier_page, turned_charts
from equivox.report.page import Chart, Table, TableRow
from equivox.report.shape_charts import AngleCurve
from equivox.tasks.images.evaluate import Evaluation
from equivox.tasks.images.turned import TurnReport


def render_evaluation(evaluation: Evaluation) -> str:
    """HTML of the report."""
    charts: list[Chart] = []
    tables: list[Table] = []
    if evaluation.turned is not None:
        charts += _turn_charts(evaluation, evaluation.turned)
        tables += _turn_tables(evaluation.turned)
    return render_classifier_page(
        subtitle=f"Model {evaluation.model['name']} on {evaluation.data}, split {evaluation.config.split}",
        facts=(
            ("accuracy", f"{evaluation.accuracy:.3f}"),
            ("cross-entropy", f"{evaluation.cross_entropy:.3f}"),
            ("pictures", str(len(evaluation.ids))),
            ("classes", str(len(evaluation.classes))),
            ("majority class", f"{evaluation.majority:.3f}"),
        ),
        summary=_rows(evaluation),
        tables=tables,
        charts=charts,
        classes=evaluation.classes,
        counts=evaluation.counts,
        shown="Upright",
        what="pictures",
        one="a picture",
        warnings=evaluation.notes,
    )


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What a terminal shows."""
    lines = [f"{label}: {value}" for label, value in _rows(evaluation)]
    if evaluation.turned is not None:
        lines += [
            f"{one.name}: accuracy {one.accuracy:.3f}, change of the logits {one.change:.2g}"
            for one in evaluation.turned.sets
        ]
    return lines


def _rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    rows = [
        ("pictures", str(len(evaluation.ids))),
        ("accuracy", f"{evaluation.accuracy:.4f}"),
        ("balanced accuracy", f"{evaluation.balanced_accuracy:.4f}"),
        ("cross-entropy", f"{evaluation.cross_entropy:.4f}"),
        ("share of the largest class", f"{evaluation.majority:.4f}"),
    ]
    if evaluation.auc is not None:
        rows.append(("area under the ROC curve", f"{evaluation.auc:.4f}"))
    return rows


def _turn_charts(evaluation: Evaluation, report: TurnReport) -> list[Chart]:
    curve = AngleCurve(
        angle_deg=tuple(point.angle_deg for point in report.curve),
        change=tuple(point.change for point in report.curve),
        floor=None,
        accuracy=tuple(point.accuracy for point in report.curve),
    )
    return turned_charts(
        [(one.name, one.accuracy) for one in report.sets], curve, majority=evaluation.majority, count=report.pictures,
        what="pictures", how="In the plane. Between quarter turns pictures are resampled and their corners are lost.",
    )  # fmt: skip


def _turn_tables(report: TurnReport) -> list[Table]:
    rows = tuple(
        TableRow(
            (
                one.name, str(one.draws), f"{one.accuracy:.4f}", f"{one.worst:.4f}", f"{one.balanced_accuracy:.4f}",
                f"{one.cross_entropy:.4f}", f"{one.change:.2e}",
            )
        )
        for one in report.sets
    )  # fmt: skip
    header = ("turned by", "turns", "accuracy", "worst turn", "balanced", "cross-entropy", "largest change of logits")
    points = tuple(
        TableRow((f"{point.angle_deg:g}", f"{point.accuracy:.4f}", f"{point.change:.2e}")) for point in report.curve
    )
    return [
        Table("Turned", header, rows, note=f"{report.pictures} pictures, each turned in so many ways."),
        Table("By angle", ("angle [°]", "accuracy", "change of logits"), points),
    ]
