"""Networks finetuned for age on one fold for the same processor time, asked upright and at random rotations.

    python experiments/encode/objectives.py --data ../shared/data/adult/ixi_brain_2mm --only masked
    python experiments/encode/finetune_fold.py --data ../shared/data/adult/ixi_brain_2mm

At 32 voxels, `equivox encode finetune --fold fold0:0`: our encoder after its masked reconstruction, trained upright; a
plain CNN and a vision transformer from their first weights, trained with a random rotation of every scan in every
epoch. One and three passes of each are timed first, unless --passes says how many; then each gets as many as fit
into --cpu-s. The epoch is chosen on 15 % of the training persons, the fold is opened once: every scan upright and in
one random rotation. One seed. Beside them, on the same scans of the fold: the mean age, the intensity histogram and
ridge on our encoder's codes before finetuning.
Writes results/finetune_fold.json; lines that are done are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from equivox.formats.atomic import write_json
from equivox.formats.subjects import read_subject_table
from equivox.metrics.grouped import draw_groups, measure, weighted_mean
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.finetune_folds import finetune_folds
from equivox.tasks.encode.finetune_numbers import target_lines
from equivox.tasks.encode.fold_choice import FoldChoice
from equivox.tasks.encode.probe import fit_readout
from equivox.tasks.encode.targets import read_targets
from equivox.tasks.encode.train import TrainRun
from equivox.tasks.encode.train_config import FinetuneConfig

SIDE, VOXEL_MM = 32, 6.6
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "ours, masked reconstruction": ("masked", {"encoder_lr": 0.3}),
    "CNN, turned in training": ("new:brain_cnn", {"encoder_lr": 1.0, "orientation": "uniform"}),
    "ViT, turned in training": ("new:brain_vit", {"encoder_lr": 1.0, "orientation": "uniform", "lr": 3e-4}),
}
"""Line -> what it begins with, what its recipe changes."""


def config_of(name: str, epochs: int) -> FinetuneConfig:
    """The recipe of a line: no degradations, validated about twenty times."""
    return FinetuneConfig(
        epochs=epochs, strength=0.0, side=SIDE, validate_every=max(1, epochs // 20), **LINES[name][1]
    )  # fmt: skip


def train(name: str, given: argparse.Namespace, epochs: int, folder: Path) -> tuple[list[dict[str, Any]], float]:
    """Held-out rows of the fold, and CPU seconds with everything."""
    model = LINES[name][0]
    start = time.process_time()
    found = finetune_folds(
        [given.data / "subjects.csv"], model if model.startswith("new:") else str(given.work / model / "model"),
        config_of(name, epochs), TrainRun(out=folder, images=given.data / "t1", device="cpu", overwrite=True, seed=0),
        FoldChoice.parse(f"fold0:{given.fold}"),
        on_fold=lambda _, counts: print(f"  {name}: {dict(counts)}, {epochs} passes", flush=True),
    )  # fmt: skip
    return [dict(row) for row in found.rows], time.process_time() - start


def line_of(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Train as long as allowed, judge."""
    folder = given.work / "finetune_fold" / name.split(",")[0]
    epochs = given.passes
    if not epochs:
        once = train(name, given, 1, folder / "timed")[1]
        per_pass = (train(name, given, 3, folder / "timed")[1] - once) / 2
        epochs = max(5, int((given.cpu_s - once + per_pass) / per_pass))
    rows, cpu_s = train(name, given, epochs, folder / "trained")
    numbers = {line.setting: line.as_dict() for line in target_lines(rows, ("age",), seed=0)}
    off = [
        [abs(float(row[key]) - float(row["age"])) for row in rows] for key in ("age_predicted_turned", "age_predicted")
    ]
    draws = draw_groups([str(row["id"]) for row in rows], 2000, generator=generator_for(0, "bootstrap"))
    change = measure(torch.tensor(off[0]).double() - torch.tensor(off[1]).double(), weighted_mean, draws)
    answers = torch.tensor([float(row["age_predicted"]) for row in rows])
    return {
        "passes": epochs, "cpu_s": round(cpu_s, 1),
        "recipe": config_of(name, epochs).as_dict(), "scans": len(rows), "answers_sd_years": float(answers.std()),
        "turned_minus_upright": change.as_dict(), **numbers,
    }  # fmt: skip


def trivial(given: argparse.Namespace) -> dict[str, Any]:
    """Intensity histogram, and ridge on the codes of our encoder before it was finetuned, on the same fold."""
    from objectives import Views, trained

    subjects = [one for one in read_subject_table(given.data).subjects if one.age is not None]
    targets = read_targets(subjects, "age")
    test = torch.tensor([one.values["fold0"] == given.fold for one in subjects])
    views = Views(subjects, given.work / "views.pt")
    model, _ = trained("masked", given.data, given.work, subjects)
    codes = [
        model.code([views.brain(number)]).scalars[0] for number, key in enumerate(views.keys) if key[0] == "upright"
    ]
    shares = []
    for one in subjects:
        assert one.path is not None
        shares.append(open_brain(one.path, voxel_size_mm=VOXEL_MM).histogram)
    found: dict[str, Any] = {}
    draws = draw_groups([one.id for one, own in zip(subjects, test.tolist(), strict=True) if own], 2000,
                        generator=generator_for(0, "bootstrap"))  # fmt: skip
    sets = {"intensity histogram": torch.stack(shares), "ours, ridge on codes": torch.stack(codes)}
    for name, features in sets.items():
        readout = fit_readout(features, targets, [one.id for one in subjects], ~test, seed=0)
        off = (readout.predict(features[test])[:, -1] - targets.values[test]).abs()
        found[name] = measure(off, weighted_mean, draws).as_dict()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fold", default="0", help="label in the column fold0")
    parser.add_argument("--cpu-s", type=float, default=360.0, help="for each network, its validation and test included")
    parser.add_argument("--passes", type=int, default=0, help="instead of as many as fit; with --only")
    parser.add_argument("--only", nargs="*", choices=[*LINES, "trivial"], default=[*LINES, "trivial"])
    parser.add_argument("--work", type=Path, default=Path("build/encode/objectives"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finetune_fold.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    document = json.loads(given.out.read_text()) if given.out.is_file() else {"lines": {}}
    document |= {
        "fold": f"fold0:{given.fold}", "side": SIDE, "seed": 0, "machine": "2 cores of a cloud CPU, one thread",
    }  # fmt: skip
    for name in given.only:
        if name == "trivial":
            document["trivial"] = trivial(given)
        else:
            document["lines"][name] = line = line_of(name, given)
            print(name, {key: line[key]["mae"] for key in ("upright", "turned", "constant")}, flush=True)
        write_json(given.out, document)


if __name__ == "__main__":
    main()
