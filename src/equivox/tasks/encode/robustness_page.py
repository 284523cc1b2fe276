"""The rotation report as a page and as lines for a terminal."""

from __future__ import annotations

from equivox.report.encode_charts import TurnCurve, turn_chart
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.tasks.encode.robustness_result import AngleRow, ModelReport, RobustnessReport

NOTICE = (
    "Read-outs were fitted to scans as they lie and asked about turned ones. A curve on the dotted line knows nothing; "
    "a constant code would be perfectly invariant, so I is relative to the spread between scans."
)


def render_robustness(report: RobustnessReport) -> str:
    """HTML of the report."""
    curves = [_curve(model) for model in report.models]
    known = report.histogram == report.histogram
    picture = turn_chart(
        curves,
        report.floor[:-1],
        metric=report.metric_name,
        chance=report.chance,
        trivial=("intensity histogram", report.histogram) if known else None,
        from_zero=report.kind == "number",
    )
    tables = [_summary(report), *(_angles(report, model) for model in report.models)]
    page = EvaluationPage(
        title="What happens when the head turns",
        notice=NOTICE,
        subtitle=(
            f"{report.turned} scans turned, of {report.scans}"
            + (f"; {report.target} by read-outs of upright codes, {report.folds}" if report.target else "")
        ),
        facts=(
            ("models", str(len(report.models))),
            ("scans turned", str(report.turned)),
            ("axes per scan and angle", f"{report.config.axes} of 13"),
            ("random turns per scan", str(report.config.random_turns)),
            ("failed", str(len(report.failed))),
        ),
        tables=tuple(tables),
        charts=(
            Chart(
                "By angle",
                as_data_uri(picture, "image/svg+xml"),
                "Means over scans and axes. Grey squares: the input's own change by one cubic resampling.",
            ),
        ),
        warnings=report.notes,
        unmatched=tuple(f"{who}: {why}" for who, why in [*report.failed, *report.skipped]),
        unmatched_title="Left out",
    )
    return render_evaluation_page(page)


def _curve(model: ModelReport) -> TurnCurve:
    rows = model.rows[:-1]
    return TurnCurve(
        model.name,
        tuple(row.angle_deg for row in rows),
        tuple(row.metric for row in rows),
        tuple(row.E for row in rows),
        tuple(row.I for row in rows),
        model.random.metric,
        model.random.E,
        model.random.I,
    )


def _summary(report: RobustnessReport) -> Table:
    rows = [
        TableRow(
            (
                model.name,
                _number(model.upright.metric, 3),
                _number(model.random.metric, 3),
                _share(model.random.metric, model.upright.metric),
                _number(_worst(report, model).metric, 3),
                "–" if report.target is None else f"{_worst(report, model).angle_deg:g}°",
                f"{model.random.E:.4f}",
                f"{model.random.I:.4f}",
                f"{model.random.I_plain:.4f}",
                f"{model.spread:.1f}",
            )
        )
        for model in report.models
    ]
    if report.target is not None:
        for name, value in (("intensity histogram", report.histogram), ("never looks", report.chance)):
            cells = (name, _number(value, 3), _number(value, 3), "+0.0 %", _number(value, 3), *["–"] * 5)
            rows.append(TableRow(cells, "soft"))
    header = ("model", "upright", "random turns", "change", "worst angle", "at", "E", "I / spread", "I plain", "rank")
    note = (
        f"{report.metric_name}; E and I over random turns. Rank: effective rank of the upright invariants. "
        f"Input's change by resampling: {report.floor[-1]:.4f}."
    )
    return Table("In short", header, tuple(rows), note=note)


def _worst(report: RobustnessReport, model: ModelReport) -> AngleRow:
    return model.worst(smaller_is_better=report.kind == "number")


def _angles(report: RobustnessReport, model: ModelReport) -> Table:
    rows = tuple(
        TableRow(
            (
                f"{row.angle_deg:g}" if row.angle_deg == row.angle_deg else "random",
                _number(row.metric, 3),
                f"{row.E:.4f}",
                f"{row.I:.4f}",
                f"{row.I_plain:.4f}",
                f"{floor:.4f}",
                "–" if floor == 0 else f"{row.E / floor:.2f}",
            )
        )
        for row, floor in zip(model.rows, report.floor, strict=True)
    )
    header = ("angle [°]", report.metric_name, "E", "I / spread", "I plain", "resampling", "E / resampling")
    return Table(model.name, header, rows)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value == value else "–"


def _share(value: float, before: float) -> str:
    return f"{100 * (value / before - 1):+.1f} %" if before == before and before else "–"


def robustness_lines(report: RobustnessReport) -> list[str]:
    """What a terminal shows."""
    lines = [f"{report.turned} scans turned, of {report.scans}"]
    for model in report.models:
        told = ""
        if report.target is not None:
            told = (
                f"{report.metric_name} {model.upright.metric:.3f} upright, {model.random.metric:.3f} at random turns "
                f"({_share(model.random.metric, model.upright.metric)}), worst {_worst(report, model).metric:.3f} at "
                f"{_worst(report, model).angle_deg:g} degrees; "
            )
        lines.append(f"{model.name}: {told}E {model.random.E:.4f}, I {model.random.I:.4f} of the spread")
    if report.target is not None:
        lines.append(f"intensity histogram {report.histogram:.3f}, never looks {report.chance:.3f}")
    lines.append(f"resampling alone {report.floor[-1]:.4f}")
    return lines
