"""What every report on a classifier shows: each class, and which is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.report.shape_charts import AngleCurve, angle_chart, confusion_chart, orientation_chart

WIDEST = 24
"""More classes than this are shown in the figure and in the files, not in a table of confusions."""
Counts = Int[Tensor, "class class"]


def confusion_figure(classes: Sequence[str], counts: Counts, *, shown: str, what: str) -> Chart:
    """The confusions as a picture; ``shown`` says how things lay, ``what`` names them, in the plural."""
    return Chart(
        "Confusion",
        as_data_uri(confusion_chart(classes, counts.tolist()), "image/svg+xml"),
        f"{shown}; colour is the share of the true class, the number how many {what}.",
    )


def class_tables(classes: Sequence[str], counts: Counts, what: str) -> list[Table]:
    """Share of right answers by class, and the confusions where there are not too many classes."""
    sizes, right = counts.sum(dim=1).tolist(), counts.diagonal().tolist()
    rows = tuple(
        TableRow((name, str(size), f"{hits / size:.3f}" if size else "–"), "" if size else "soft")
        for name, size, hits in zip(classes, sizes, right, strict=True)
    )
    tables = [Table("By class", ("class", what, "share right"), rows)]
    if len(classes) <= WIDEST:
        lines = tuple(
            TableRow((name, *(str(count) if count else "" for count in line)))
            for name, line in zip(classes, counts.tolist(), strict=True)
        )
        tables.append(Table("Confusions", ("true \\ predicted", *classes), lines, note=f"How many {what}."))
    return tables


def turned_charts(
    sets: Sequence[tuple[str, float]], curve: AngleCurve, *, majority: float, count: int, what: str, how: str
) -> list[Chart]:
    """How a classifier takes turned things: its accuracy by set of orientations, and the curve against the angle.

    Parameters
    ----------
    sets
        Names, and accuracies over ``count`` things.
    curve
        Against the angle.
    majority
        Share of the largest class.
    count, what
        How many things, and what they are called in the plural.
    how
        A sentence or two on how those of the curve were turned.
    """
    bars = orientation_chart([name for name, _ in sets], [share for _, share in sets], majority)
    return [
        Chart(f"Turned {what}", as_data_uri(bars, "image/svg+xml"), f"{count} {what}."),
        Chart(
            "By how much they are turned",
            as_data_uri(angle_chart(curve, majority), "image/svg+xml"),
            f"{how} Change: root mean square of the difference of the logits, relative to their standard deviation "
            f"over {what}.",
        ),
    ]


def render_classifier_page(
    *,
    subtitle: str,
    facts: Sequence[tuple[str, str]],
    summary: Sequence[tuple[str, str]],
    tables: Sequence[Table],
    charts: Sequence[Chart],
    classes: Sequence[str],
    counts: Counts,
    shown: str,
    what: str,
    one: str,
    warnings: Sequence[str],
) -> str:
    """HTML of a report on a classifier.

    Parameters
    ----------
    subtitle, facts
        Which model on which data, and the numbers of the first line.
    summary
        Measures and their values.
    tables, charts
        What is the task's own, before confusions and classes.
    classes, counts
        Of the model, and :func:`equivox.metrics.classification.confusion`.
    shown
        How things lay.
    what, one
        Names them in the plural, and one with its article.
    warnings
        What a reader should know.
    """
    short = Table("In short", ("measure", "value"), tuple(TableRow(row) for row in summary), note=f"{shown}.")
    page = EvaluationPage(
        title="How often the classifier is right",
        notice=f"A classifier always answers with one of its classes, also for {one} of none of them.",
        subtitle=subtitle,
        facts=tuple(facts),
        tables=(short, *tables, *class_tables(classes, counts, what)),
        charts=(*charts, confusion_figure(classes, counts, shown=shown, what=what)),
        warnings=tuple(warnings),
    )
    return render_evaluation_page(page)
