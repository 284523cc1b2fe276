"""What every report on a classifier shows: each class, and which is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor

from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.report.shape_charts import confusion_chart

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


def render_classifier_page(
    *,
    subtitle: str,
    facts: Sequence[tuple[str, str]],
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
    page = EvaluationPage(
        title="How often the classifier is right",
        notice=f"A classifier always answers with one of its classes, also for {one} of none of them.",
        subtitle=subtitle,
        facts=tuple(facts),
        tables=(*tables, *class_tables(classes, counts, what)),
        charts=(*charts, confusion_figure(classes, counts, shown=shown, what=what)),
        warnings=tuple(warnings),
    )
    return render_evaluation_page(page)
