"""An evaluation of picks as a page and as lines for a terminal."""

from __future__ import annotations

import torch

from equivox.metrics.picking import calibration_error
from equivox.report.micrograph_picture import grey_array, marked_picture
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.report.pick_charts import CurveBand, precision_recall_chart, reliability_chart, score_chart
from equivox.tasks.pick.evaluate import SHOWN, Evaluated, Evaluation

RIGHT_COLOR, WRONG_COLOR, MISSED_COLOR = "#35d07f", "#ff8a3d", "#5fb4ff"
NOTICE = "Labels that are missing count as false picks: the numbers are lower bounds where labelling is incomplete."


def render_evaluation(evaluation: Evaluation) -> str:
    """HTML of the report."""
    f1, place = evaluation.curve.best_f1()
    band = evaluation.band
    best = () if place < 0 else (float(evaluation.curve.recall[place]), float(evaluation.curve.precision[place]))
    charts = [
        Chart(
            "Precision and recall",
            as_data_uri(
                precision_recall_chart(
                    [0.0, *evaluation.curve.recall.tolist()],
                    [1.0, *evaluation.curve.precision.tolist()],
                    evaluation.curve.area,
                    None
                    if band is None
                    else CurveBand(band.recall.tolist(), band.precision_low.tolist(), band.precision_high.tolist()),
                    best,
                ),
                "image/svg+xml",
            ),
            f"A pick is right within {evaluation.config.tolerance:g} Å of a label that no better pick has taken.",
        ),
        Chart(
            "Scores",
            as_data_uri(
                score_chart(evaluation.log_odds.tolist(), evaluation.config.threshold, evaluation.right.tolist()),
                "image/svg+xml",
            ),
            "All candidates.",
        ),
    ]
    if evaluation.calibrated and evaluation.bins:
        drawn = reliability_chart(
            [one.said for one in evaluation.bins],
            [one.right for one in evaluation.bins],
            [one.count for one in evaluation.bins],
            calibration_error(evaluation.bins),
        )
        charts.append(
            Chart("Reliability", as_data_uri(drawn, "image/svg+xml"), "On the dotted line probabilities are right.")
        )
    charts += [_picture(evaluation, one) for one in evaluation.micrographs[:SHOWN]]
    tables = [_summary(evaluation), _by_micrograph(evaluation)]
    if evaluation.turned:
        rows = tuple(TableRow((one.name, f"{one.average_precision:.4f}")) for one in evaluation.turned)
        note = f"The middle of {evaluation.config.turned} micrograph(s)."
        tables.append(Table("Turned micrographs", ("micrograph", "average precision"), rows, note=note))
    page = EvaluationPage(
        title="How good the picks are",
        notice=NOTICE,
        subtitle=_subtitle(evaluation),
        facts=(
            ("average precision", f"{evaluation.curve.area:.3f}"),
            ("best F1", f"{f1:.3f}"),
            ("labels", str(evaluation.curve.labels)),
            ("micrographs", str(len(evaluation.micrographs))),
        ),
        tables=tuple(tables),
        charts=tuple(charts),
        warnings=evaluation.notes[:12],
        unmatched=tuple(f"{name}: {reason}" for name, reason in evaluation.data.unmatched.items())[:50],
    )
    return render_evaluation_page(page)


def summary_lines(evaluation: Evaluation) -> list[str]:
    """What a terminal shows."""
    return [f"{label}: {value}" for label, value in _summary_rows(evaluation)]


def _subtitle(evaluation: Evaluation) -> str:
    what = evaluation.measured.get("model")
    shown = f"Model {what}" if what is not None else f"Picks of {evaluation.measured['picks']}"
    return f"{shown}, radius {evaluation.config.source.radius_angstrom:g} Å, {evaluation.data.contrast} particles"


def _summary_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    f1, place = evaluation.curve.best_f1()
    rows = [
        ("labels", str(evaluation.curve.labels)),
        ("candidates", str(len(evaluation.right))),
        ("average precision", f"{evaluation.curve.area:.4f}"),
    ]
    if evaluation.band is not None:
        rows.append(("95 % over micrographs", f"{evaluation.band.low:.4f} to {evaluation.band.high:.4f}"))
    if place >= 0:
        precision, recall = float(evaluation.curve.precision[place]), float(evaluation.curve.recall[place])
        rows.append(("best F1 (precision, recall)", f"{f1:.4f} ({precision:.3f}, {recall:.3f})"))
    if evaluation.calibrated:
        precision, recall = evaluation.at_threshold()
        rows.append(
            (f"precision, recall at probability {evaluation.config.threshold:g}", f"{precision:.3f}, {recall:.3f}")
        )
        rows.append(("calibration error", f"{calibration_error(evaluation.bins):.4f}"))
    return rows


def _summary(evaluation: Evaluation) -> Table:
    rows = tuple(TableRow(row) for row in _summary_rows(evaluation))
    note = f"Right within {evaluation.config.tolerance:g} Å; all labels are the denominator of recall."
    return Table("In short", ("measure", "value"), rows, note=note)


def _by_micrograph(evaluation: Evaluation) -> Table:
    rows = tuple(
        TableRow(
            (
                one.micrograph.name,
                str(one.part.labels),
                str(len(one.part.score)),
                f"{one.curve.area:.4f}",
                f"{one.curve.best_f1()[0]:.4f}",
            )
        )
        for one in evaluation.micrographs
    )
    header = ("micrograph", "labels", "candidates", "average precision", "best F1")
    return Table("By micrograph", header, rows, long_columns=(0,))


def _picture(evaluation: Evaluation, one: Evaluated) -> Chart:
    """Right picks, wrong picks and missed labels, at the score of the best F1."""
    _, place = evaluation.curve.best_f1()
    least = float(evaluation.curve.threshold[place]) if place >= 0 else float("inf")
    chosen = one.candidates.score >= least
    picks = one.candidates.yx_px[chosen].double()
    labels = one.micrograph.labels_px.double()
    tolerance = evaluation.config.tolerance / evaluation.config.source.radius_angstrom
    pixel = one.micrograph.prepared
    height, width = one.micrograph.image.shape
    reach = tolerance * evaluation.config.source.radius_angstrom / (pixel.pixel_size_angstrom * pixel.factor[0])
    apart = torch.cdist(picks, labels) if len(picks) and len(labels) else torch.zeros(len(picks), len(labels))
    hit = (apart <= reach).any(dim=1) if len(labels) else torch.zeros(len(picks), dtype=torch.bool)
    missed = ~(apart <= reach).any(dim=0) if len(picks) else torch.ones(len(labels), dtype=torch.bool)
    size = torch.tensor([height, width], dtype=torch.float64)

    def places(points: torch.Tensor) -> list[tuple[float, float]]:
        shares = (points + 0.5) / size
        return [(float(x), float(y)) for y, x in shares]

    drawn = marked_picture(
        grey_array(one.micrograph.image),
        width_angstrom=pixel.file_size_px[1] * pixel.pixel_size_angstrom,
        groups=[
            ("right", RIGHT_COLOR, places(picks[hit])),
            ("wrong", WRONG_COLOR, places(picks[~hit])),
            ("missed", MISSED_COLOR, places(labels[missed])),
        ],
        radius_angstrom=0.6 * evaluation.config.source.radius_angstrom,
    )
    caption = (
        f"At the best F1. Green: picks near a label ({int(hit.sum())}); orange: picks without ({int((~hit).sum())}); "
        f"blue: labels without a pick ({int(missed.sum())})."
    )
    return Chart(one.micrograph.name.rsplit("/", 1)[-1], as_data_uri(drawn, "image/webp"), caption)
