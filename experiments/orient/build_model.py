"""Put the model folder ``asparagine-synthetase`` together: measured at several levels of noise, with its card.

    equivox orient train ../shared/data/cryoem/structures/11as.pdb.gz --out RUN --symmetry C2 --side 33 \\
        --picture-pixel-angstrom 3.3 --snr 0.1 2 --defocus-angstrom 8000 25000 --shift-angstrom 6 --epochs 20
    python experiments/orient/build_model.py RUN --structure ../shared/data/cryoem/structures/11as.pdb.gz
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

import equivox
from equivox.geometry.point_groups import point_group
from equivox.metrics.orientation import orientation_angles, reliability, summarise_angles
from equivox.nets.orientation import OrientationNet
from equivox.nets.orientation_search import CONFIDENCE_DEG, Calibration, search_poses
from equivox.run.sampling import group_samples
from equivox.tasks.orient.config import NETWORK, OrientTraining
from equivox.tasks.orient.particle import load_particle
from equivox.tasks.orient.samples import SimulatedPictures
from equivox.tasks.orient.train_result import certify_orientation, measure
from equivox.weights.folder import read_model_folder, write_model_folder

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "src" / "equivox" / "models"
NAME = "asparagine-synthetase"
LICENSE = """The weights in this folder are licensed under the Apache License, Version 2.0
(http://www.apache.org/licenses/LICENSE-2.0); the text is in the LICENSE file at
the root of the project.

They were trained on pictures simulated from Protein Data Bank entry 11AS, whose
data are under CC0 1.0 (www.wwpdb.org).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--structure", type=Path, required=True)
    parser.add_argument("--tests", type=int, default=500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    trained = read_model_folder(given.run / "model")
    network = trained.networks()[NETWORK]
    assert isinstance(network, OrientationNet)
    provenance, picture = trained.config["provenance"], trained.config["input"]
    settings = recipe(provenance["training"])
    points = load_particle(given.structure).points
    validation = SimulatedPictures(
        points, settings.picture, settings.simulation, seed=provenance["seed"], training=False
    )
    measured = measure(network, validation, settings)
    calibration = Calibration(**measured["calibration"])
    group = point_group(settings.picture.symmetry).float()
    levels = {}
    for snr in (1.0, 0.3, 0.1, 0.05):
        simulation = replace(settings.simulation, snr=(snr, snr), validation=given.tests)
        samples = SimulatedPictures(points, settings.picture, simulation, seed=99, training=False)
        (batch,) = group_samples([samples.sample(0, index) for index in range(given.tests)])
        parts = [
            search_poses(network, part, group=group, calibration=calibration) for part in batch["picture"].split(100)
        ]
        poses = torch.cat([part.rotations[:, 0] for part in parts])
        told = torch.cat([part.confidence[:, 0] for part in parts])
        angles = orientation_angles(batch["rotation"], poses, group=group)
        shift = torch.cat([part.shifts_px[:, 0] for part in parts if part.shifts_px is not None]) - batch["shift_px"]
        levels[str(snr)] = {
            **summarise_angles(angles).as_dict(),
            "calibration_error": reliability(told, torch.rad2deg(angles) <= CONFIDENCE_DEG).error,
            "mean_confidence": float(told.mean()),
            "median_shift_error_angstrom": float(shift.norm(dim=-1).median()) * picture["pixel_size_angstrom"],
        }
        print(snr, levels[str(snr)], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    document = {"validation": measured, "by_snr": levels, "tests": given.tests}
    (HERE / "results" / "shipped_model.json").write_text(json.dumps(document, indent=2) + "\n")
    rows = "\n".join(
        f"| {snr} | {row['mean_rad']:.3f} | {row['median_rad']:.3f} | {row['near']:.1%} | "
        f"{row['mean_confidence']:.3f} | {row['calibration_error']:.3f} | {row['median_shift_error_angstrom']:.1f} |"
        for snr, row in levels.items()
    )
    write_model_folder(
        MODELS / NAME,
        name=NAME,
        task="orient",
        behaviour="equivox",
        networks={NETWORK: trained.config["networks"][NETWORK]},
        weights={NETWORK: network.state_dict()},
        card=(HERE / "card.md").read_text().replace("{numbers}", rows).replace("{tests}", str(given.tests)),
        certificate=certify_orientation(network),
        license_text=LICENSE,
        extra={
            "input": picture,
            "output": {**measured["calibration"], "confidence_within_deg": CONFIDENCE_DEG},
            "settings": trained.config["settings"],
            "provenance": {**provenance, "validation": measured, "trained_with": f"equivox {equivox.__version__}"},
            "license": "Apache-2.0",
        },
        overwrite=True,
    )
    print(MODELS / NAME)


def recipe(values: dict) -> OrientTraining:
    """The settings that a model folder tells."""
    flat = {name: value for name, value in values.items() if name not in ("picture", "simulation")}
    given = {**flat, **values["picture"], **values["simulation"]}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return OrientTraining().with_values(**given)


if __name__ == "__main__":
    main()
