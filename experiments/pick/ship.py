"""Train the shipped picker, measure it on micrographs that took no part, and put its folder together.

    python experiments/pick/ship.py train --data ../shared/data/cryoem --out W
    python experiments/pick/ship.py build --data ../shared/data/cryoem --out W

Training: 10 micrographs of beta-galactosidase with the labels of the CryoPPP project and 9 of apoferritin with our own
picks; 2 + 2 others choose the epoch and calibrate; 3 + 3 others are the test, apoferritin there by hand labels, which
the training never saw.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from real import RADII_ANGSTROM, TOLERANCES_ANGSTROM, numbers, of_part, split_table

from equivox.formats.micrograph_names import micrograph_stem
from equivox.metrics.picking import calibration_error, reliability
from equivox.tasks.pick.config import PickSource, PickTraining
from equivox.tasks.pick.data import open_labelled
from equivox.tasks.pick.picker import load_pick_model
from equivox.tasks.pick.train import TrainRun, train_picker
from equivox.tasks.pick.train_result import judge_network
from equivox.weights.folder import read_model_folder, read_weights, write_model_folder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "ship.json"
MODELS = Path(__file__).parents[2] / "src" / "equivox" / "models"
NAME = "particles"
LABELS = {"bgal_10017": "coordinates.txt", "apoferritin_10146": "coordinates_auto.txt"}
RECIPE = PickTraining(
    network={"preset": "ball_cryo45_3k", "grid": "d4opt-16"}, epochs=45, patience=None, tiles_per_epoch=120,
    scale_jitter=0.12, contrast_jitter=0.3, noise=0.15,
)  # fmt: skip


def sources(data: Path, out: Path) -> list[PickSource]:
    """Both sets, each with its table of parts."""
    found = []
    for name, labels in LABELS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        found.append(
            PickSource(
                micrographs=(str(data / name / "*.mrc"),), coordinates=(str(data / name / labels),),
                radius_angstrom=RADII_ANGSTROM[name], split=str(split_table(data / name, folder)),
            )
        )  # fmt: skip
    return found


def train(data: Path, out: Path) -> None:
    """Learn."""

    def say(epoch: int, row: Any) -> None:
        print(epoch, {name: round(value, 4) for name, value in row.items()}, flush=True)

    trained = train_picker(
        sources(data, out), RECIPE, TrainRun(out=out / NAME, resume=True), progress=say, command=("ship.py",)
    )
    print(trained.counts, trained.average_precision)


def measure(data: Path, out: Path) -> dict[str, Any]:
    """On the test micrographs of both sets, by labels of people."""
    model = load_pick_model(out / NAME / "model")
    rows: dict[str, Any] = {}
    for name, source in zip(LABELS, sources(data, out), strict=True):
        by_hand = PickSource(
            micrographs=source.micrographs, coordinates=(str(data / name / "coordinates.txt"),),
            radius_angstrom=source.radius_angstrom, split=source.split,
        )  # fmt: skip
        held = open_labelled(by_hand, radius_px=RECIPE.radius_px, seed=0, split=False).validation
        chosen = of_part(Path(str(source.split)), "test")
        test = [one for one in held if micrograph_stem(one.name) in chosen]
        tolerance = TOLERANCES_ANGSTROM[name] * RECIPE.radius_px / source.radius_angstrom
        found = judge_network(model.network, test, RECIPE.radius_px, [0.0] * len(test), tolerance_px=tolerance)
        score = torch.cat([part.score for part in found.parts])
        right = torch.cat([part.right for part in found.parts])
        probability = model.calibration.probability(score.double())
        kept = probability >= 0.5
        rows[name] = {
            **numbers(list(found.parts)),
            "calibration_error": calibration_error(reliability(probability, right)),
            "precision_at_half": float(right[kept].double().mean()),
            "recall_at_half": float(right[kept].double().sum() / sum(part.labels for part in found.parts)),
            "test": sorted(chosen),
        }
    return rows


def build(data: Path, out: Path) -> None:
    """The model folder, its card from what was measured."""
    rows = measure(data, out)
    folder = read_model_folder(out / NAME / "model")
    config = folder.config
    size = sum(path.stat().st_size for path in folder.path.iterdir())
    parameters = sum(
        tensor.numel()
        for name, tensor in read_weights(folder)["pick"].items()
        if "running" not in name and "batches" not in name
    )
    rows["parameters"], rows["bytes"], rows["recipe"] = parameters, size, RECIPE.as_dict()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    card = (HERE / "card_particles.md").read_text()
    lines = [
        f"| {name} | {row['labels']} | {row['ap']:.3f} | {row['ap_low']:.3f}–{row['ap_high']:.3f} | {row['f1']:.3f} "
        f"({row['precision']:.2f} / {row['recall']:.2f}) | {row['calibration_error']:.3f} |"
        for name, row in ((name, rows[name]) for name in LABELS)
    ]
    card = card.replace("{numbers}", "\n".join(lines)).replace("{parameters}", f"{parameters:,}")
    provenance = {**config["provenance"]}
    provenance["data"] = [
        {**one, "micrographs": list(LABELS)[place : place + 1], "coordinates": [LABELS[list(LABELS)[place]]],
         "split": "experiments/pick/ship.py"}
        for place, one in enumerate(provenance["data"])
    ]  # fmt: skip
    provenance["measured"] = {name: {"average_precision": rows[name]["ap"], "f1": rows[name]["f1"]} for name in LABELS}
    target = MODELS / NAME
    shutil.rmtree(target, ignore_errors=True)
    write_model_folder(
        target, name=NAME, task="pick", behaviour="equivox", networks=config["networks"], weights=read_weights(folder),
        card=card, certificate=folder.certificate(), license_text=(HERE / "model_license.txt").read_text(),
        extra={
            "input": config["input"], "output": config["output"], "settings": config.get("settings", {}),
            "provenance": provenance, "license": "apache-2.0",
        },
        overwrite=True,
    )  # fmt: skip
    print(json.dumps({name: rows[name] for name in LABELS}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("train", "build"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cryoem"))
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    {"train": train, "build": build}[chosen.step](chosen.data, chosen.out)


if __name__ == "__main__":
    main()
