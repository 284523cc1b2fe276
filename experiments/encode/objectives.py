"""Every objective of pretraining at 32 voxels on equal terms, and what age, sex and rotations make of each.

    python experiments/encode/objectives.py --data ../shared/data/adult/ixi_brain_2mm
    python experiments/encode/objectives.py --data ../shared/data/adult/ixi_brain_2mm --only soe_published masked

Each line is trained by its recipe (`equivox encode pretrain --preset NAME --side 32`) on split=train and the unlabelled
scans, our encoder for EPOCHS passes over them, the plain network for PLAIN_EPOCHS: about the same processor time.
Then all are probed alike: ridge (logistic for sex) on the invariants, (a) fitted to split=train and val, asked about
split=test, which neither encoder nor read-out saw; (b) in 5 x 5 folds over all, where the encoder saw most scans
unlabelled. Upright, in a random rotation each, and by some angles. Models and results of lines that are done are kept.
Writes results/objectives.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from age_probe import read_out

from equivox.formats.atomic import write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import random_rotations, rotation_from_vector
from equivox.metrics.class_intervals import class_numbers
from equivox.metrics.grouped import draw_groups
from equivox.metrics.regression import regression_numbers
from equivox.nets.brain_encoder import BrainEncoder
from equivox.nets.brain_encoders import build_encoder
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import Brain, open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.probe import fit_readout
from equivox.tasks.encode.robustness import cube_axes
from equivox.tasks.encode.targets import make_folds, read_targets
from equivox.tasks.encode.train import TrainRun, pretrain_encoder, settle_encoder
from equivox.tasks.encode.train_config import pretrain_preset
from equivox.tasks.encode.train_samples import ScanSet, ScanStore
from equivox.tasks.encode.verify import code_errors

SIDE, VOXEL_MM = 32, 6.6
EPOCHS, PLAIN_EPOCHS = 3, 12
PLAIN = {"architecture": "brain_cnn", "read": "latent"}
LINES: dict[str, tuple[str, dict[str, object]]] = {
    "untrained": ("", {}),
    "untrained_cnn": ("", PLAIN),
    "soe": ("soe", {"epochs": PLAIN_EPOCHS}),
    "soe_published": ("soe_published", {"epochs": PLAIN_EPOCHS}),
    "masked": ("masked", {"epochs": EPOCHS}),
    "vicreg": ("vicreg", {"epochs": EPOCHS}),
    "vicreg_cnn": ("vicreg", {"epochs": PLAIN_EPOCHS, "network": PLAIN}),
    "brain": ("brain", {"epochs": EPOCHS}),
    "simclr": ("simclr", {"epochs": EPOCHS}),
    "autoencoder": ("autoencoder", {"epochs": EPOCHS}),
    "vae": ("vae", {"epochs": EPOCHS}),
    "byol": ("byol", {"epochs": EPOCHS}),
}
"""Recipe and what replaces its values; without a recipe the encoder stays as drawn (ours standardised)."""
ANGLES_DEG = (45, 90, 180, 270)
TURNED_EVERY = 2
"""Of all scans, one in so many also gets a random rotation."""


class Views:
    """Every scan upright; some in one random rotation; those of the test by each angle about one of the 13 axes."""

    def __init__(self, subjects: list[Subject], cache: Path) -> None:
        turns = random_rotations(len(subjects), generator=generator_for(0, "haar"))
        tested = [place for place, one in enumerate(subjects) if one.values["split"] == "test"]
        self.keys: list[tuple[str, int, torch.Tensor]] = []
        for place in range(len(subjects)):
            self.keys.append(("upright", place, torch.eye(3, dtype=torch.float64)))
            if place % TURNED_EVERY == 0:
                self.keys.append(("haar", place, turns[place]))
            if place in tested:
                number = tested.index(place)
                for step, angle in enumerate(ANGLES_DEG):
                    axis = cube_axes()[(number + 5 * step) % 13 if angle % 90 else number % 3]
                    self.keys.append((str(angle), place, rotation_from_vector(axis * math.radians(angle))))
        if not cache.is_file():
            stored, source, last = [], None, -1
            for kind, place, turn in self.keys:
                if place != last:
                    path = subjects[place].path
                    assert path is not None
                    source, last = open_brain(path, voxel_size_mm=VOXEL_MM), place
                assert source is not None
                brain = source.sample(side=SIDE, turn=None if kind == "upright" else turn)
                stored.append(torch.stack([brain.volume, brain.mask]))
            cache.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.stack(stored), cache)
        self.pairs = torch.load(cache, weights_only=True)

    def brain(self, number: int) -> Brain:
        """One view."""
        volume, mask = self.pairs[number]
        blank = torch.eye(3)
        return Brain(volume, mask, torch.eye(4).double(), (), blank, 0.0, 0.0, "")


def trained(name: str, data: Path, work: Path, subjects: list[Subject]) -> tuple[EncodeModel, float]:
    """The encoder of a line, and the CPU seconds that its training took; one that is there is read."""
    preset, values = LINES[name]
    if not preset:
        kind = dict(values or {"architecture": "brain_encoder"})
        draw = torch.Generator().manual_seed(0)
        network = build_encoder(
            str(kind.pop("architecture")), **kind, side=SIDE, voxel_size_mm=VOXEL_MM, generator=draw
        ).eval()
        if isinstance(network, BrainEncoder):
            part = tuple(one for one in subjects if one.values["split"] == "train")
            settle_encoder(network, ScanStore(ScanSet(part), VOXEL_MM))
        return EncodeModel(network), 0.0
    folder, spent = work / name, work / name / "cpu_s.json"
    if not spent.is_file():
        config = pretrain_preset(preset).with_values(**{"side": SIDE, "voxel_size_mm": VOXEL_MM, **values})
        config = config.with_values(validate_every=config.epochs)
        start = time.process_time()

        def told(epoch: int, row: object) -> None:
            print(f"  {name} epoch {epoch} {time.process_time() - start:.0f} CPU s {row}", flush=True)

        pretrain_encoder(
            [data / "subjects.csv"], config,
            TrainRun(out=folder, images=data / "t1", device="cpu", overwrite=True, seed=0), progress=told,
        )  # fmt: skip
        write_json(spent, {"cpu_s": round(time.process_time() - start, 1)})
    return load_encode_model(folder / "model"), json.loads(spent.read_text())["cpu_s"]


def measured(model: EncodeModel, views: Views, subjects: list[Subject]) -> dict[str, object]:
    """Age, sex, E and I of one encoder, every orientation."""
    codes = [model.code([views.brain(number)]) for number in range(len(views.keys))]
    where = {(kind, place): number for number, (kind, place, _) in enumerate(views.keys)}
    still = torch.stack([codes[where["upright", place]].scalars[0] for place in range(len(subjects))])
    spread = float((still - still.mean(0)).norm(dim=1).square().mean().sqrt())
    table: dict[str, object] = {"features": still.shape[1]}
    table["effective_rank"] = effective_rank(still)
    code = codes[where["upright", 0]]
    values = torch.linalg.svdvals(code.polar[0].double())
    table["second_over_first_singular_value"] = float(values[1] / values[0])
    follow: dict[str, dict[str, float]] = {}
    for kind in ("haar", *map(str, ANGLES_DEG)):
        pairs = [(codes[where["upright", place]], codes[where[kind, place]], turn)
                 for one, place, turn in views.keys if one == kind]  # fmt: skip
        errors = torch.tensor([code_errors(*pair)[:1] + code_errors(*pair)[3:] for pair in pairs])
        drift = torch.stack([(after.scalars - before.scalars)[0] for before, after, _ in pairs]).norm(dim=1)
        follow[kind] = {
            "E": float(errors[:, 0].mean()), "pose_median_deg": float(errors[:, 1].median()),
            "I_over_spread": float(drift.mean()) / max(spread, 1e-12), "views": len(pairs),
        }  # fmt: skip
    table["follow"] = follow
    features = {kind: torch.full((len(subjects), still.shape[1]), float("nan")) for kind in follow}
    for (kind, place), number in where.items():
        if kind != "upright":
            features[kind][place] = codes[number].scalars[0]
    return table | probed(still, features, subjects)


def probed(still: torch.Tensor, features: dict[str, torch.Tensor], subjects: list[Subject]) -> dict[str, object]:
    """(a) and (b) of the head of this file, for age and for sex."""
    groups = [one.id for one in subjects]
    found: dict[str, object] = {}
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    test = torch.tensor([one.values["split"] == "test" for one in subjects])
    turned = ~torch.isnan(features["haar"]).any(dim=1)
    for target in ("age", "sex"):
        targets = read_targets(subjects, target)
        folds, _ = make_folds(subjects, targets, count=5, repeats=5, seed=0, given=target == "age")
        outputs = read_out(still, features["haar"], targets, groups, folds)
        readout = fit_readout(still, targets, groups, ~test, seed=0)
        own, few = draws.columns(test.nonzero()[:, 0]), draws.columns(turned.nonzero()[:, 0])
        if target == "age":
            wanted = targets.values[test]
            ask = {"upright": still, **features}
            found["age_test"] = {
                kind: regression_numbers(readout.predict(rows[test])[:, -1][None], wanted, own).as_dict()
                for kind, rows in ask.items()
                if not torch.isnan(rows[test]).any()
            }
            found["age_folds"] = {
                "upright": regression_numbers(outputs[0], targets.values, draws).as_dict(),
                "upright_of_the_turned": regression_numbers(
                    outputs[0][:, turned], targets.values[turned], few
                ).as_dict(),
                "turned": regression_numbers(outputs[1][:, turned], targets.values[turned], few).as_dict(),
            }
        else:
            found["sex_folds"] = {
                "upright": class_numbers(outputs[2], outputs[0], targets.labels, classes=2, resamples=draws).as_dict(),
                "turned": class_numbers(
                    outputs[3][:, turned], outputs[1][:, turned], targets.labels[turned], classes=2, resamples=few
                ).as_dict(),
            }
    return found


def effective_rank(rows: torch.Tensor) -> float:
    """Exponential of the entropy of the shares of variance: 1 where one direction has it all."""
    shares = torch.linalg.svdvals((rows - rows.mean(0)).double()).square()
    shares = shares / shares.sum().clamp_min(1e-300)
    return float(torch.exp(-(shares * shares.clamp_min(1e-300).log()).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(LINES), default=list(LINES))
    parser.add_argument("--work", type=Path, default=Path("build/encode/objectives"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "objectives.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [one for one in read_subject_table(given.data).subjects if one.age is not None]
    views = Views(subjects, given.work / "views.pt")
    document = json.loads(given.out.read_text()) if given.out.is_file() else {"lines": {}}
    document |= {
        "side": SIDE, "voxel_size_mm": VOXEL_MM, "seed": 0, "brains": len(subjects),
        "machine": "2 cores of a cloud CPU, one thread",
        "test": sum(one.values["split"] == "test" for one in subjects),
    }  # fmt: skip
    for name in [one for one in LINES if one in given.only]:
        model, cpu_s = trained(name, given.data, given.work, subjects)
        preset, values = LINES[name]
        line = {
            "preset": preset, "changed": values, "training_cpu_s": cpu_s,
            "parameters": sum(one.numel() for one in model.network.parameters()),
            **measured(model, views, subjects),
        }  # fmt: skip
        document["lines"][name] = line
        write_json(given.out, document)
        age, follow = line["age_folds"], line["follow"]
        print(
            f"{name:14s} {cpu_s:5.0f} CPU s  MAE test {line['age_test']['upright']['mae']['value']:.2f} folds "
            f"{age['upright']['mae']['value']:.2f}, of the turned {age['upright_of_the_turned']['mae']['value']:.2f} "
            f"turned {age['turned']['mae']['value']:.2f}  E {follow['haar']['E']:.3f} "
            f"I {follow['haar']['I_over_spread']:.2f}",
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
