"""A run of picking as a page: picks on micrographs, scores, orientations, counts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from equivox.formats.atomic import write_text
from equivox.report.micrograph_picture import marked_picture, read_grey_picture
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.report.pick_charts import orientation_chart, score_chart
from equivox.run.batch import lost_of
from equivox.tasks.pick.picker import Picks
from equivox.tasks.pick.results import picture_path

if TYPE_CHECKING:
    from equivox.tasks.pick.predict import PickRun

PICK_COLOR = "#35d07f"
MOST_ROWS = 200
NOTICE = "A pick may be wrong where its probability is high: look at the pictures before you use the picks."


def write_page(run: PickRun, path: Path) -> Path:
    """Write the page; returns its path."""
    write_text(path, render_page(run))
    return path


def render_page(run: PickRun) -> str:
    """HTML of the report of `equivox pick predict`."""
    kept = run.picks
    total = sum(len(one) for one in kept)
    all_odds = [one.result.picks.log_odds for one in run.outcomes if one.result is not None]
    odds = np.concatenate(all_odds) if all_odds else np.zeros(0)
    charts = _pictures(run)
    charts.append(
        Chart(
            "Scores",
            as_data_uri(score_chart(odds.tolist(), run.threshold), "image/svg+xml"),
            "All candidates of the run; those right of the line are written.",
        )
    )
    posed = [one for one in kept if one.has_poses]
    if posed:
        rot, tilt = (np.concatenate([getattr(one, name) for one in posed]) for name in ("rot_deg", "tilt_deg"))
        charts.append(
            Chart(
                "Orientations",
                as_data_uri(orientation_chart(rot.tolist(), tilt.tolist()), "image/svg+xml"),
                "Best rotation of each pick on the network's grid: rot to the right, tilt downwards, size says how "
                "many. The frame is the model's own: only how views are spread has a meaning, not where they lie.",
            )
        )
    expected = np.concatenate([one.probability for one in kept]) if total else np.zeros(0)
    page = EvaluationPage(
        title="Where the particles are",
        notice=NOTICE,
        subtitle=f"{run.model['name']}, radius {run.radius_angstrom:g} Å, probability {run.threshold:.2f} and up",
        facts=(
            ("micrographs", str(len(kept))),
            ("picks", str(total)),
            ("per micrograph", f"{total / max(1, len(kept)):.0f}"),
            ("expected to be right", f"{expected.mean():.2f}" if total and run.calibrated else "–"),
            ("failed", str(len(run.outcomes) - len(kept))),
        ),
        tables=(_table(run, kept), *_failures(run)),
        charts=tuple(charts),
        warnings=run.warnings[:12],
    )
    return render_evaluation_page(page)


def _pictures(run: PickRun) -> list[Chart]:
    """Micrographs whose small picture was kept."""
    charts = []
    for outcome in run.outcomes:
        if outcome.result is None or not picture_path(run.out, outcome.result.stem).exists():
            continue
        picks = outcome.result.picks.above(run.threshold)
        rows, columns = picks.file_size_px
        places = [((x + 0.5) / columns, (y + 0.5) / rows) for x, y in zip(picks.x_px, picks.y_px, strict=True)]
        drawn = marked_picture(
            read_grey_picture(picture_path(run.out, outcome.result.stem)),
            width_angstrom=columns * picks.pixel_size_angstrom,
            groups=[("picks", PICK_COLOR, places)],
            radius_angstrom=run.radius_angstrom,
        )
        caption = (
            f"{len(picks)} picks, circles of {run.radius_angstrom:g} Å radius, {picks.contrast} particles, row 0 of "
            "the file on top."
        )
        charts.append(Chart(Path(outcome.entry.name).name, as_data_uri(drawn, "image/webp"), caption))
    return charts


def _table(run: PickRun, kept: list[Picks]) -> Table:
    rows = []
    for one in kept[:MOST_ROWS]:
        mean = f"{one.probability.mean():.2f}" if len(one) else "–"
        rows.append(
            TableRow(
                (one.name, str(len(one)), mean, one.contrast, f"{one.pixel_size_angstrom:.4g}"),
                "" if len(one) else "soft",
            )
        )
    more = f" The first {MOST_ROWS} of {len(kept)}." if len(kept) > MOST_ROWS else ""
    header = ("micrograph", "picks", "mean probability", "particles", "pixel [Å]")
    note = f"{'Probabilities are calibrated.' if run.calibrated else 'Probabilities are not calibrated.'}{more}"
    return Table("Micrographs", header, tuple(rows), note=note, text_columns=(0, 3), long_columns=(0,))


def _failures(run: PickRun) -> tuple[Table, ...]:
    lost = lost_of(run.outcomes)
    if not lost:
        return ()
    rows = tuple(TableRow((one.entry.name, one.reason), "bad") for one in lost[:MOST_ROWS])
    return (Table("Without picks", ("micrograph", "reason"), rows, text_columns=(0, 1), long_columns=(0, 1)),)
