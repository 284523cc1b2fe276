"""A probe as a page and as lines for a terminal."""

from __future__ import annotations

from equivox.metrics.grouped import Measured
from equivox.metrics.regression import RegressionNumbers
from equivox.report.encode_charts import prediction_chart
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.tasks.encode.probe import Probe, ProbeLine

NOTICE = (
    "Linear read-outs of fixed codes. The grey lines need no network: a code that does not beat them has learned "
    "nothing of use for this target."
)


def render_probe(probe: Probe) -> str:
    """HTML of the report."""
    charts = []
    if probe.targets.kind == "number":
        shown = [line for line in probe.lines if not line.trivial] or [probe.lines[-1]]
        picture = prediction_chart(
            probe.targets.values.tolist(),
            [(line.name, line.predicted.mean(dim=0).tolist()) for line in shown[:4]],
            probe.targets.name,
        )
        charts.append(
            Chart("Held-out predictions", as_data_uri(picture, "image/svg+xml"), "Mean over repetitions; line: truth.")
        )
    page = EvaluationPage(
        title=f"What the codes know about {probe.targets.name}",
        notice=NOTICE,
        subtitle=f"{len(probe.subjects)} scans of {len({s.id for s in probe.subjects})} people; {probe.folds_told}",
        facts=(
            ("scans", str(len(probe.subjects))),
            ("people", str(len({s.id for s in probe.subjects}))),
            ("repetitions", str(len(probe.folds))),
            ("left out", str(len(probe.skipped))),
        ),
        tables=(results_table(probe),),
        charts=tuple(charts),
        warnings=probe.notes,
        unmatched=tuple(f"{who}: {why}" for who, why in probe.skipped),
        unmatched_title="Left out",
    )
    return render_evaluation_page(page)


def results_table(probe: Probe) -> Table:
    """All predictors, the trivial ones in grey."""
    number = probe.targets.kind == "number"
    header: tuple[str, ...] = (
        (
            "read out of",
            "features",
            "MAE",
            "95 % interval",
            "SD over repetitions",
            "R²",
            "r",
            "bias slope",
            "− best grey",
        )
        if number
        else ("read out of", "features", "balanced accuracy", "95 % interval", "SD over repetitions", "F1", "ROC area")
    )
    rows = tuple(TableRow(tuple(_cells(line)), "soft" if line.trivial else "") for line in probe.lines)
    note = (
        "MAE: mean absolute error of held-out predictions, interval by a bootstrap over people. − best grey: "
        "difference to the best line without a network, on the same scans."
        if number
        else f"Classes: {', '.join(probe.targets.classes)}. A guess has {1 / len(probe.targets.classes):.2f}."
    )
    return Table("Read-outs", header, rows, note=note)


def _cells(line: ProbeLine) -> list[str]:
    cells = [line.name, str(line.features)]
    numbers = line.numbers
    if isinstance(numbers, RegressionNumbers):
        cells += [f"{numbers.mae.value:.2f}", _interval(numbers.mae), _number(numbers.mae_sd, 2)]
        cells += [_number(numbers.r2.value, 2), _number(numbers.r, 2), _number(numbers.bias_slope, 2)]
        other = line.against_best_trivial
        cells.append("" if other is None else f"{other.value:+.2f} [{other.low:+.2f}, {other.high:+.2f}]")
        return cells
    cells += [f"{numbers.bacc.value:.3f}", _interval(numbers.bacc, 3), _number(numbers.bacc_sd, 3)]
    return [*cells, _number(numbers.f1, 3), _number(numbers.auc, 3)]


def _interval(measured: Measured, digits: int = 2) -> str:
    return f"{measured.low:.{digits}f} – {measured.high:.{digits}f}"


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if value == value else "–"


def probe_lines(probe: Probe) -> list[str]:
    """What a terminal shows."""
    table = results_table(probe)
    width = max(len(row.cells[0]) for row in table.rows)
    kept = [2, 3, 4, 5] if probe.targets.kind == "number" else [2, 3, 4, 6]
    lines = [f"{probe.targets.name} of {len(probe.subjects)} scans; {probe.folds_told}"]
    lines.append("  ".join(["read out of".ljust(width), *(table.header[index] for index in kept)]))
    for row in table.rows:
        cells = [row.cells[index].rjust(len(table.header[index])) for index in kept]
        lines.append("  ".join([row.cells[0].ljust(width), *cells]))
    return lines
