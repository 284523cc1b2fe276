"""The page of `equivox orient predict`: which views there are, how sure the model is, and pictures by confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from equivox.geometry.euler_relion import relion_from_matrix
from equivox.metrics.orientation import view_coverage
from equivox.report.orientation_charts import Example, example_chart, histogram_chart, view_map
from equivox.report.page import Chart, EvaluationPage, Table, TableRow, as_data_uri, render_evaluation_page
from equivox.tasks.orient.predict import PredictRun
from equivox.tasks.orient.prepare import Preparation

SVG = "image/svg+xml"
EXAMPLES = 6
"""Pictures shown of the surest, the middle and the least sure particles each."""
NOTICE = (
    "The model answers for any picture, also for ice and dirt: look at the confidence, the probability that the "
    "orientation is within 10 degrees of the truth for pictures like those it was trained on."
)


def render_prediction(run: PredictRun, preparation: Preparation) -> str:
    """HTML of the page."""
    told = run.confidence[run.usable, 0].double()
    coverage = view_coverage(run.rotations[run.usable, 0])
    charts = (
        Chart("Views", as_data_uri(view_map(coverage.counts.numpy()), SVG), view_caption()),
        Chart(
            "Confidence",
            as_data_uri(histogram_chart(told.tolist(), label="confidence", limits=(0.0, 1.0)), SVG),
            "Probability that the orientation is within 10 degrees of the truth.",
        ),
        example_figure(preparation, run.confidence[:, 0], run.usable),
    )
    lost = int((~run.usable).sum())
    rows = [
        ("particles", str(len(run.usable))),
        ("without an answer", str(lost)),
        ("median confidence", f"{float(told.median()):.3f}"),
        ("median entropy (0: nothing known)", f"{float(run.entropy[run.usable].median()):.1f} nat"),
        ("of confidence 0.5 and more", f"{float((told >= 0.5).double().mean()):.1%}"),
        *coverage_rows(coverage.empty, coverage.counts.numel(), coverage.fullest, coverage.evenness),
        ("symmetry", run.symmetry),
        ("images", f"{run.stack.box_px} px of {run.stack.pixel_size_angstrom:g} Å"),
        ("pictures", f"{preparation.picture.side} px of {preparation.picture.pixel_size_angstrom:g} Å"),
        ("transfer", _transfer_words(preparation)),
        ("contrast", "taken as it is" if preparation.sign > 0 else "inverted"),
    ]
    page = EvaluationPage(
        title="Orientations of particles",
        notice=NOTICE,
        subtitle=f"Model {run.model['name']} on {run.config.particles}",
        facts=(
            ("particles", str(len(run.usable) - lost)),
            ("median confidence", f"{float(told.median()):.2f}"),
            ("empty views", f"{coverage.empty}/{coverage.counts.numel()}"),
        ),
        tables=(Table("In short", ("what", "value"), tuple(TableRow(row) for row in rows), text_columns=(0, 1)),),
        charts=charts,
        warnings=run.notes,
        unmatched=tuple(reason for _, _, reason in run.failures[:50]),
    )
    return render_evaluation_page(page)


def view_caption() -> str:
    """What the map of views shows."""
    return (
        "Viewing directions in the particle's frame (rot to the right, tilt 0 on top) in 12 x 24 bins of equal area; "
        "1 is an even share. A symmetric particle's views are shown as they were answered."
    )


def coverage_rows(empty: int, bins: int, fullest: float, evenness: float) -> list[tuple[str, str]]:
    """Lines about the coverage of views."""
    return [
        ("bins of views without a particle", f"{empty} of {bins}"),
        ("fullest bin", f"{fullest:.1f} times the even share"),
        ("evenness (entropy / that of even views)", f"{evenness:.3f}"),
    ]


def example_figure(preparation: Preparation, confidence: Tensor, usable: Tensor) -> Chart:
    """The surest, the middle and the least sure particles, as the network sees them."""
    order = torch.nonzero(usable)[:, 0]
    order = order[confidence[order].argsort(descending=True, stable=True)]
    middle = max(0, len(order) // 2 - EXAMPLES // 2)
    groups = [order[:EXAMPLES], order[middle : middle + EXAMPLES], order[max(0, len(order) - EXAMPLES) :]]
    chosen = list(dict.fromkeys(int(index) for group in groups for index in group))
    pictures, _ = preparation.pictures(chosen)
    examples = [
        Example(pictures[place, 0].numpy(), f"{index}: {float(confidence[index]):.2f}")
        for place, index in enumerate(chosen)
    ]
    return Chart(
        "Examples by confidence",
        as_data_uri(example_chart(examples), SVG),
        "Pictures as the network sees them: the surest, the middle ones, the least sure; index and confidence above.",
    )


def angles_text(rotation: Tensor) -> str:
    """rot, tilt, psi in whole degrees."""
    return ", ".join(f"{angle:.0f}°" for angle in relion_from_matrix(rotation.double()).tolist())


def _transfer_words(preparation: Preparation) -> str:
    if preparation.picture.transfer == "none":
        return "left alone, as the model was trained"
    if preparation.imaging is None:
        return "no defocus in the table: left alone"
    return "negative signs flipped" if preparation.picture.transfer == "flip" else "given to the network"
