"""An evaluation as a page and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from equivox.metrics.grouped import Measured
from equivox.metrics.pose import HALF_TURNS, PoseSummary
from equivox.metrics.pose_baselines import BaselineNumbers
from equivox.report.charts import StackError, error_chart
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.tasks.pose.evaluate import Evaluation

MEASURES: tuple[tuple[str, str, str], ...] = (
    ("rotation_median_deg", "rotation error, median [°]", "number"),
    ("rotation_mean_deg", "rotation error, mean [°]", "number"),
    ("rotation_p95_deg", "rotation error, 95th percentile [°]", "number"),
    ("share_below_10_deg", "below 10°", "share"),
    ("share_below_20_deg", "below 20°", "share"),
    ("share_below_30_deg", "below 30°", "share"),
    ("share_flipped", "flipped (above 90°)", "share"),
    ("share_without_answer", "without a pose", "share"),
    ("pitch_median_deg", "pitch (about left-right), median [°]", "number"),
    ("roll_median_deg", "roll (about front-back), median [°]", "number"),
    ("yaw_median_deg", "yaw (about up-down), median [°]", "number"),
    ("center_median_mm", "centre, median [mm]", "number"),
    ("center_p95_mm", "centre, 95th percentile [mm]", "number"),
    ("share_center_within_10_mm", "centre within 10 mm", "share"),
)
SUMMARY_NAMES = {
    "primary": "primary, raw",
    "primary_calibrated": "primary, offset removed",
    "all": "all, raw",
    "all_calibrated": "all, offset removed",
}
CONSISTENCY_NAMES = {
    "rotation_cube": "turned by quarter and third turns",
    "rotation_random": "turned by random rotations",
    "half_stack": "even against odd slices",
    "crop": "crop shifted by 6 mm, scaled by 10 %",
    "mirror": "mirrored",
}


def render_evaluation(evaluation: Evaluation) -> str:
    """HTML of ``evaluation.html``."""
    return render_evaluation_page(
        EvaluationPage(
            subtitle=f"{evaluation.config.predicted} against {evaluation.config.truth}",
            facts=_facts(evaluation),
            warnings=evaluation.notes,
            charts=_charts(evaluation),
            tables=_tables(evaluation),
            unmatched=evaluation.unmatched,
        )
    )


def summary_lines(evaluation: Evaluation) -> list[str]:
    """The numbers that matter, as lines for a terminal: primary set, raw and calibrated, and the baselines."""
    header = ("", "stacks", "median°", "p95°", "<10°", "<20°", "<30°", ">90°", "centre mm", "<=10mm")
    rows = []
    for name, label in SUMMARY_NAMES.items():
        if name in evaluation.summaries:
            s = evaluation.summaries[name]
            v = {key: number.value for key, number in s.by_stack.items()}
            rows.append(
                (label, str(s.stacks), _plain(v["rotation_median_deg"]), _plain(v["rotation_p95_deg"]),
                 *(_percent(v[f"share_below_{limit}_deg"]) for limit in (10, 20, 30)), _percent(v["share_flipped"]),
                 _plain(v["center_median_mm"]), _percent(v["share_center_within_10_mm"]))
            )  # fmt: skip
    rows += [(f"  {name}", *_baseline_cells(numbers), "", "") for name, numbers in evaluation.baselines.items()]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    ]
    return [line.rstrip() for line in lines]


def flip_lines(evaluation: Evaluation) -> list[str]:
    """One sentence for every flipped stack; a flip is a wrong answer, said aloud."""
    lines = []
    for index, (predicted, true) in enumerate(evaluation.pairs):
        axis = evaluation.raw.confused_axis[index]
        if axis:
            angle = float(evaluation.raw.rotation_deg[index])
            lines.append(
                f"FLIPPED  {true.id}: {angle:.0f}° off, nearest to a half turn {HALF_TURNS[axis]}; "
                f"its status says {predicted.status}"
            )
    return lines


def _facts(evaluation: Evaluation) -> tuple[tuple[str, str], ...]:
    primary = evaluation.summaries["primary"]
    return (
        ("stacks", str(len(evaluation.pairs))),
        ("in the primary set", str(primary.stacks)),
        ("subjects", str(primary.subjects)),
        ("groups drawn by the bootstrap", f"{primary.groups} × {evaluation.config.resamples}"),
        ("flips", str(evaluation.summaries["all"].flips)),
        ("without a pose", str(evaluation.summaries["all"].without_answer)),
    )


def _charts(evaluation: Evaluation) -> tuple[Chart, ...]:
    stacks = [
        StackError(true.id, subject, float(angle), predicted.status == "low_confidence")
        for (predicted, true), subject, angle in zip(
            evaluation.pairs, evaluation.subjects, evaluation.raw.rotation_deg, strict=True
        )
    ]
    caption = "One point per stack, one column per subject, raw. Dotted: 10° and 30°."
    return (Chart("Rotation error of every stack", as_data_uri(error_chart(stacks), "image/svg+xml"), caption),)


def _tables(evaluation: Evaluation) -> tuple[Table, ...]:
    tables = [
        _summary_table(
            "Per stack", evaluation, "by_stack",
            "Value and 95 % interval (bootstrap over groups of subjects). Primary: without stacks whose landmarks are "
            "in doubt. Offset removed: one constant rotation, fitted on the other folds, taken out.",
        ),
        _summary_table(
            "Per subject", evaluation, "by_subject", "First the mean over each subject's stacks, then over subjects."
        ),
        _baseline_table(evaluation),
    ]  # fmt: skip
    if evaluation.strata:
        rows = tuple(
            TableRow((name, str(s.stacks), *(_shown(s.by_stack[key], kind) for key, _, kind in MEASURES[:7])))
            for name, s in evaluation.strata.items()
        )
        header = ("stratum", "stacks", *(label for _, label, _ in MEASURES[:7]))
        tables.append(Table("Strata (primary set, raw, per stack)", header, rows))
    if evaluation.consistency:
        tables.append(_consistency_table(evaluation))
    tables.append(_stack_table(evaluation))
    return tuple(tables)


def _summary_table(title: str, evaluation: Evaluation, by: str, note: str) -> Table:
    summaries = {name: evaluation.summaries[name] for name in SUMMARY_NAMES if name in evaluation.summaries}

    def number(summary: PoseSummary, key: str) -> Measured:
        return (summary.by_stack if by == "by_stack" else summary.by_subject)[key]

    rows = tuple(
        TableRow((label, *(_shown(number(summary, key), kind) for summary in summaries.values())))
        for key, label, kind in MEASURES
    )
    return Table(title, ("", *(SUMMARY_NAMES[name] for name in summaries)), rows, note)


def _baseline_table(evaluation: Evaluation) -> Table:
    header = ("", "stacks", "median [°]", "p95 [°]", "below 10°", "below 20°", "below 30°", "flipped")
    rows = []
    for name in ("primary", "primary_calibrated"):
        if name in evaluation.summaries:
            s = evaluation.summaries[name]
            v = {key: number.value for key, number in s.by_stack.items()}
            cells = (_plain(v["rotation_median_deg"]), _plain(v["rotation_p95_deg"]))
            shares = tuple(_percent(v[f"share_below_{limit}_deg"]) for limit in (10, 20, 30))
            rows.append(TableRow((f"predicted ({SUMMARY_NAMES[name]})", str(s.stacks), *cells, *shares,
                                  _percent(v["share_flipped"]))))  # fmt: skip
    rows += [TableRow((name, *_baseline_cells(n)), "soft") for name, n in evaluation.baselines.items()]
    note = "What any method has to beat. The oracle is told the signs, so it cannot flip."
    return Table("Beside the baselines", header, tuple(rows), note)


def _consistency_table(evaluation: Evaluation) -> Table:
    rows = []
    for name, result in evaluation.consistency.items():
        if result.reason:
            rows.append(TableRow((name, f"no pose: {result.reason}", *[""] * (len(CONSISTENCY_NAMES) - 1)), "bad"))
            continue
        tests = result.as_dict()
        cells = []
        for key in CONSISTENCY_NAMES:
            test = tests[key]
            if not isinstance(test, dict) or test["median_deg"] is None:
                cells.append("–")
            else:
                cells.append(f"{test['median_deg']:.2f}° ({100 * test['share_above_10_deg']:.0f} %)")
        rows.append(TableRow((name, *cells)))
    note = "No truth needed. Median disagreement, and in brackets the share above 10°; a missing answer counts as one."
    return Table("The model against itself", ("", *CONSISTENCY_NAMES.values()), tuple(rows), note)


def _stack_table(evaluation: Evaluation) -> Table:
    header = ("stack", "subject", "status", "rotation [°]", "offset removed [°]", "pitch [°]", "roll [°]", "yaw [°]",
              "centre [mm]", "remarks")  # fmt: skip
    raw, calibrated = evaluation.raw, evaluation.calibrated
    order = sorted(range(len(raw)), key=lambda i: -_or(float(raw.rotation_deg[i]), 999.0))
    rows = []
    for i in order:
        predicted, true = evaluation.pairs[i]
        axis = raw.confused_axis[i]
        remarks = [f"flip, nearest to a half turn about {axis}"] if axis else []
        remarks += [predicted.reason] if predicted.reason else []
        remarks += [] if bool(evaluation.primary[i]) else [f"not primary: {true.columns.get('flags', '')}"]
        cells = [
            _plain(float(column[i]))
            for column in (
                raw.rotation_deg,
                (calibrated or raw).rotation_deg,
                raw.pitch_deg,
                raw.roll_deg,
                raw.yaw_deg,
                raw.center_mm,
            )
        ]
        if calibrated is None:
            cells[1] = "–"
        frame = f", frame {predicted.frame}" if predicted.frame else ""
        words = (f"{true.id}{frame}", evaluation.subjects[i], predicted.status)
        rows.append(TableRow((*words, *cells, "; ".join(remarks)),
                             "bad" if axis or not predicted.world_from_head else ""))  # fmt: skip
    return Table("Every stack, worst first", header, tuple(rows), text_columns=(0, 1, 2, 9), long_columns=(9,))


def _baseline_cells(numbers: BaselineNumbers) -> tuple[str, ...]:
    shares = (numbers.share_below_10_deg, numbers.share_below_20_deg, numbers.share_below_30_deg, numbers.share_flipped)
    count = "exact" if numbers.stacks is None else str(numbers.stacks)
    return (count, _plain(numbers.median_deg), _plain(numbers.p95_deg), *(_percent(share) for share in shares))


def _shown(number: Measured, kind: str) -> str:
    show = _percent if kind == "share" else _plain
    if number.value != number.value:
        return "–"
    return f"{show(number.value)} ({show(number.low)} to {show(number.high)})"


def _plain(value: float) -> str:
    return f"{value:.1f}" if value == value else "–"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value == value else "–"


def _or(value: float, other: float) -> float:
    return value if value == value else other


def unmatched_lines(unmatched: Sequence[str], limit: int = 10) -> list[str]:
    """What found no partner, the first ten in full."""
    shown = [f"not matched: {line}" for line in unmatched[:limit]]
    return shown + (
        [f"... and {len(unmatched) - limit} more (evaluation.json lists all)"] if len(unmatched) > limit else []
    )
