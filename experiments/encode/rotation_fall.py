"""Age of the brains of split=test turned by every 30 degrees: networks finetuned upright or turned, and read-outs.

    python experiments/encode/objectives.py --data ../shared/data/adult/ixi_brain_2mm
    python experiments/encode/rotation_fall.py --data ../shared/data/adult/ixi_brain_2mm
    python experiments/encode/rotation_fall.py --figure docs/images/encode_fall.webp

At 32 voxels. Finetuned (`equivox encode finetune --side 32`) on split=train, the epoch chosen on split=val: the
published encoder after its published pretraining, a plain CNN from its first weights, trained upright and with a random
rotation of every scan in every epoch, a vision transformer likewise. Read out by ridge from codes of upright scans: the
encoders of objectives.py. Each scan turns about one of the three axes of the head. Writes results/rotation_fall.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from objectives import SIDE, VOXEL_MM, Views, trained

from equivox.formats.atomic import write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import random_rotations, rotation_from_vector
from equivox.nets.brain_code import BrainCode, turn_code
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import Brain, open_brain
from equivox.tasks.encode.finetune import finetune_encoder
from equivox.tasks.encode.model import EncodeModel
from equivox.tasks.encode.probe import fit_readout
from equivox.tasks.encode.targets import read_targets
from equivox.tasks.encode.train import TrainRun
from equivox.tasks.encode.train_config import FinetuneConfig
from equivox.weights.folder import read_model_folder

ANGLES_DEG = tuple(range(0, 360, 30))
EPOCHS = 10
FINETUNED = {
    "published, finetuned": ("soe_published", "none"),
    "CNN, finetuned": ("new:brain_cnn", "none"),
    "CNN, finetuned turned": ("new:brain_cnn", "uniform"),
    "ViT, finetuned": ("new:brain_vit", "none"),
    "ViT, finetuned turned": ("new:brain_vit", "uniform"),
}
"""Line -> what it begins with, how training turns scans."""
READ_OUT = {
    "published, read out": "soe_published", "corrected, read out": "soe", "ours untrained, read out": "untrained",
    "ours masked, read out": "masked", "ours vicreg, read out": "vicreg",
}  # fmt: skip
"""Line -> line of objectives.py."""


def views_of(subjects: list[Subject]) -> list[tuple[str, int, torch.Tensor, Brain]]:
    """(angle or haar, scan, rotation, brain) of every scan."""
    found = []
    turns = random_rotations(len(subjects), generator=generator_for(0, "fall"))
    for place, subject in enumerate(subjects):
        assert subject.path is not None
        source = open_brain(subject.path, voxel_size_mm=VOXEL_MM)
        for angle in ANGLES_DEG:
            turn = rotation_from_vector(torch.eye(3, dtype=torch.float64)[place % 3] * math.radians(angle))
            found.append((str(angle), place, turn, source.sample(side=SIDE, turn=turn if angle else None)))
        found.append(("haar", place, turns[place], source.sample(side=SIDE, turn=turns[place])))
    return found


def summary(views: list[Any], years: list[float], codes: list[BrainCode], subjects: list[Subject]) -> dict[str, Any]:
    """MAE, and E of the vectors, by angle."""
    first = {place: code for (kind, place, _, _), code in zip(views, codes, strict=True) if kind == "0"}
    table: dict[str, Any] = {}
    for kind in (*map(str, ANGLES_DEG), "haar"):
        rows = [number for number, view in enumerate(views) if view[0] == kind]
        ages = torch.tensor([subjects[views[number][1]].age for number in rows]).double()
        errors = (torch.tensor([years[number] for number in rows]).double() - ages).abs()
        follow = []
        for number in rows:
            _, place, turn, _ = views[number]
            wanted = turn_code(first[place], turn[None]).polar
            follow.append(float((codes[number].polar - wanted).norm() / wanted.norm().clamp_min(1e-12)))
        table[kind] = {
            "mae": float(errors.mean()), "se": float(errors.std() / len(errors) ** 0.5), "E": sum(follow) / len(follow)
        }  # fmt: skip
    return table


def finetuned(name: str, given: argparse.Namespace) -> tuple[Any, float]:
    """Encoder and heads of a line, and CPU seconds; trained where they are not there."""
    model, orientation = FINETUNED[name]
    folder = given.work / "finetuned" / name.replace(",", "").replace(" ", "-")
    spent = folder / "cpu_s.json"
    if not spent.is_file():
        start = time.process_time()
        fresh = model.startswith("new:")
        config = FinetuneConfig(
            epochs=EPOCHS, strength=0.0, orientation="uniform" if orientation == "uniform" else "none", side=SIDE,
            encoder_lr=1.0 if fresh else 0.3, lr=3e-4 if "vit" in model else 1e-3,
        )  # fmt: skip
        finetune_encoder(
            [given.data / "subjects.csv"], model if fresh else str(given.work / model / "model"), config,
            TrainRun(out=folder, images=given.data / "t1", device="cpu", overwrite=True),
        )  # fmt: skip
        write_json(spent, {"cpu_s": round(time.process_time() - start, 1)})
    return read_model_folder(folder / "model"), json.loads(spent.read_text())["cpu_s"]


@torch.inference_mode()
def measure(given: argparse.Namespace) -> None:
    """Every line, each kept when it is done."""
    every = [one for one in read_subject_table(given.data).subjects if one.age is not None]
    subjects = [one for one in every if one.values["split"] == "test"]
    views, stored = views_of(subjects), Views(every, given.work / "views.pt")
    document = json.loads(given.out.read_text()) if given.out.is_file() else {"lines": {}}
    ages = torch.tensor([one.age for one in every if one.values["split"] != "test"]).double()
    constant = (torch.tensor([one.age for one in subjects]).double() - ages.mean()).abs().mean()
    document |= {
        "scans": len(subjects), "side": SIDE, "epochs": EPOCHS, "seed": 0, "constant_mae": float(constant),
        "machine": "2 cores of a cloud CPU, one thread",
    }  # fmt: skip
    for name in given.only or [*FINETUNED, *READ_OUT]:
        if name in FINETUNED:
            with torch.inference_mode(False):
                folder, cpu_s = finetuned(name, given)
            networks, output = folder.networks(), folder.config["output"]
            model = EncodeModel(networks["encoder"])
            codes = [model.code([view[3]]) for view in views]
            heads = networks["heads"].eval()
            years = [float(heads(one.scalars)["age"][0, 0]) * output["age_sd"] + output["age_mean"] for one in codes]
        else:
            model, cpu_s = trained(READ_OUT[name], given.data, given.work, every)
            codes = [model.code([view[3]]) for view in views]
            rest = [one for one in every if one.values["split"] != "test"]
            kept = [number for number, (kind, place, _) in enumerate(stored.keys)
                    if kind == "upright" and every[place].values["split"] != "test"]  # fmt: skip
            still = torch.cat([model.code([stored.brain(number)]).scalars for number in kept])
            targets = read_targets(rest, "age")
            readout = fit_readout(
                still, targets, [one.id for one in rest], torch.ones(len(rest), dtype=torch.bool), seed=0
            )
            years = readout.predict(torch.cat([one.scalars for one in codes]))[:, -1].tolist()
        document["lines"][name] = {"cpu_s": cpu_s, "by_angle": summary(views, years, codes, subjects)}
        write_json(given.out, document)
        row = document["lines"][name]["by_angle"]
        print(
            f"{name:26s} " + " ".join(f"{kind}:{row[kind]['mae']:.1f}/{row[kind]['E']:.2f}" for kind in row), flush=True
        )


def draw(source: Path, picture: Path) -> None:
    """Age error and E against the angle."""
    import matplotlib.pyplot as plt

    document = json.loads(source.read_text())
    styles = {
        "published, read out": ("SOE as published", "#b2182b"), "corrected, read out": ("SOE, full rank", "#ef8a62"),
        "ours masked, read out": ("ours, masked reconstruction", "#2166ac"),
    }  # fmt: skip
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.9), layout="constrained")
    angles = [*ANGLES_DEG, 360]
    for name, (label, color) in styles.items():
        rows = document["lines"][name]["by_angle"]
        for axis, key in zip(axes, ("mae", "E"), strict=True):
            values = [rows[str(angle % 360)][key] for angle in angles]
            axis.plot(angles, values, color=color, marker="o", markersize=3.5, label=label)
    axes[0].axhline(document["constant_mae"], color="black", linestyle=":", linewidth=1.0, label="says the mean age")
    axes[0].set_ylabel("error of age, mean [years]")
    axes[1].set_ylabel("E of the vectors [relative]")
    for axis in axes:
        axis.set_xlabel("head turned by [degrees]")
        axis.set_xticks(range(0, 361, 90))
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log", base=2)
    axes[0].set_yticks([5, 10, 20, 40, 80], ["5", "10", "20", "40", "80"])
    axes[0].set_ylim(5.0, 110.0)
    axes[1].set_ylim(-0.05, 2.0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*FINETUNED, *READ_OUT])
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/encode/objectives"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "rotation_fall.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.data is not None:
        measure(given)
    if given.figure is not None:
        draw(given.out, given.figure)


if __name__ == "__main__":
    main()
