"""The shipped picker keeps its card's word on the sample micrographs, which took no part in its training."""

from __future__ import annotations

import pytest

from equivox.samples import cryoem_folder
from equivox.tasks.pick.config import SHIPPED_MODEL, PickSource
from equivox.tasks.pick.evaluate import EvaluateConfig, evaluate_picks
from equivox.weights.folder import find_model, read_weights


def test_it_is_small_has_a_card_a_licence_and_holds_quarter_turns() -> None:
    folder = find_model(SHIPPED_MODEL)
    assert sum(path.stat().st_size for path in folder.path.iterdir()) <= 100_000
    parameters = sum(tensor.numel() for name, tensor in read_weights(folder)["pick"].items() if "running" not in name)
    assert parameters <= 15_000
    card = (folder.path / "README.md").read_text()
    assert "denoised" in card
    assert "{numbers}" not in card
    assert "CryoPPP" in (folder.path / "LICENSE").read_text()
    assert folder.certificate()["rotations_hold"] is True
    assert folder.config["output"]["calibration"]["picks"] > 100


@pytest.mark.parametrize(
    ("micrograph", "labels", "radius", "least"),
    [
        ("Falcon_2012_06_12-15_36_26_0.mrc", "bgal_labels.txt", 90.0, 0.82),
        ("May08_04.36.57.mrc", "apoferritin_labels.txt", 62.0, 0.95),
    ],
)
def test_it_finds_the_particles_of_the_samples(micrograph: str, labels: str, radius: float, least: float) -> None:
    folder = cryoem_folder()
    source = PickSource(
        micrographs=(str(folder / micrograph),), coordinates=(str(folder / labels),), radius_angstrom=radius
    )
    found = evaluate_picks(EvaluateConfig(source=source, model=SHIPPED_MODEL, turned=0))
    assert found.data.contrast == "dark"
    assert found.curve.area >= least
    precision, recall = found.at_threshold()
    assert precision > 0.6
    assert recall > 0.6
