"""Age and sex of the labelled brains from codes, upright and turned, beside what needs no network.

    python experiments/encode/age_probe.py --data ../shared/data/adult/ixi_brain_2mm --model untrained
    python experiments/encode/age_probe.py --data ../shared/data/adult/ixi_brain_2mm --model brain-encoder-t1

Ridge (logistic for sex) on the invariants, 5 repetitions of 5 folds as given with the data, penalties by folds within
training part. Read-outs are fitted to upright scans; test scans are given upright and in one rotation each, uniform
on SO(3), sampled once from the 2 mm scan. Writes results/age_<name>.json; codes are kept in --cache.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from equivox.formats.atomic import write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import random_rotations
from equivox.metrics.class_intervals import class_numbers
from equivox.metrics.grouped import draw_groups, measure, weighted_mean
from equivox.metrics.probing import predicted_classes
from equivox.metrics.regression import regression_numbers
from equivox.nets.brain_encoders import build_encoder
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.probe import Codes, fit_readout, trivial_features
from equivox.tasks.encode.targets import Targets, make_folds, read_targets


def encoder(name: str, seed: int) -> EncodeModel:
    """A model folder, or an encoder that was never trained (``untrained``, ``untrained-brain_cnn``, ...)."""
    if not name.startswith("untrained"):
        return load_encode_model(name)
    kind = name.partition("-")[2] or "brain_encoder"
    generator = torch.Generator().manual_seed(seed)
    return EncodeModel(build_encoder(kind, generator=generator))


def codes_of(model: EncodeModel, subjects: list[Subject], cache: Path, seed: int) -> dict[str, np.ndarray]:
    """Invariants upright and turned, histograms, volumes; read from the cache where it has them."""
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            return dict(stored)
    rows: dict[str, list[list[float]]] = {"upright": [], "turned": [], "histogram": [], "volume_ml": []}
    turns = random_rotations(len(subjects), generator=generator_for(seed, "haar"))
    for number, (subject, turn) in enumerate(zip(subjects, turns, strict=True)):
        assert subject.path is not None
        source = open_brain(subject.path, voxel_size_mm=model.voxel_size_mm)
        both = [source.sample(side=model.side), source.sample(side=model.side, turn=turn)]
        for name, brain in zip(("upright", "turned"), both, strict=True):
            rows[name].append(model.code([brain]).scalars[0].tolist())
        rows["histogram"].append(source.histogram.tolist())
        rows["volume_ml"].append([source.volume_ml])
        if number % 20 == 0:
            print(f"{number + 1}/{len(subjects)}  {time.process_time():.0f} CPU s", flush=True)
    found = {name: np.array(values) for name, values in rows.items()}
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, **found)
    return found


def read_out(
    upright: torch.Tensor, turned: torch.Tensor, targets: Targets, groups: list[str], folds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Held-out outputs and classes of upright and of turned test scans in every repetition."""
    outputs = torch.zeros(2, *folds.shape, dtype=torch.float64)
    answers = torch.zeros(2, *folds.shape, dtype=torch.int64)
    for repeat, row in enumerate(folds):
        for fold in row.unique().tolist():
            test = row == fold
            readout = fit_readout(upright, targets, groups, ~test, seed=0, repeat=repeat, fold=fold)
            for side, features in enumerate((upright, turned)):
                output = readout.predict(features[test])
                outputs[side, repeat, test] = output[:, -1]
                if targets.kind == "class":
                    answers[side, repeat, test] = predicted_classes(output)
    return outputs[0], outputs[1], answers[0], answers[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("build/encode"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [subject for subject in read_subject_table(options.data).subjects if subject.age is not None]
    groups = [subject.id for subject in subjects]
    name = Path(options.model).name + (f"-seed{options.seed}" if options.model.startswith("untrained") else "")
    started = time.process_time()
    found = codes_of(encoder(options.model, options.seed), subjects, options.cache / f"age_{name}.npz", options.seed)
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    sets = {name: (torch.from_numpy(found["upright"]), torch.from_numpy(found["turned"]))}
    histogram = tuple(tuple(row) for row in found["histogram"].tolist())
    volumes = tuple(found["volume_ml"][:, 0].tolist())
    document: dict[str, object] = {"model": options.model, "seed": options.seed, "brains": len(subjects)}
    for target in ("age", "sex"):
        targets = read_targets(subjects, target)
        folds, told = make_folds(subjects, targets, count=5, repeats=5, seed=0, given=target == "age")
        plain = Codes("", sets[name][0], ("",) * len(subjects), histogram, volumes)
        lines = {one: (features, features) for one, features in trivial_features(subjects, targets, plain)} | sets
        results = {}
        for line, (upright, turned) in lines.items():
            still, moved, still_class, moved_class = read_out(upright, turned, targets, groups, folds)
            if target == "age":
                first, second = (regression_numbers(one, targets.values, draws) for one in (still, moved))
                worse = [(one - targets.values).abs().mean(dim=0) for one in (moved, still)]
                results[line] = {
                    "upright": first.as_dict(), "turned": second.as_dict(),
                    "turned_over_upright": second.mae.value / first.mae.value,
                    "turned_minus_upright": measure(worse[0] - worse[1], weighted_mean, draws).as_dict(),
                }  # fmt: skip
                print(f"{line:32s} MAE {first.mae.value:6.2f} ± {first.mae_sd:.2f} turned {second.mae.value:6.2f}")
            else:
                first_class, second_class = (
                    class_numbers(classes, scores, targets.labels, classes=2, resamples=draws)
                    for classes, scores in ((still_class, still), (moved_class, moved))
                )
                results[line] = {"upright": first_class.as_dict(), "turned": second_class.as_dict()}
                print(f"{line:32s} BACC {first_class.bacc.value:.3f} turned {second_class.bacc.value:.3f}")
        document[target] = {"folds": told, "results": results}
    upright, turned = sets[name]
    spread = (upright - upright.mean(0)).norm(dim=1).square().mean().sqrt()
    document["I_over_spread"] = float((turned - upright).norm(dim=1).mean() / spread)
    document["I_plain"] = float(((turned - upright).norm(dim=1) / upright.norm(dim=1)).mean())
    document["cpu_s"] = round(time.process_time() - started, 1)
    write_json(options.out / f"age_{name}.json", document)


if __name__ == "__main__":
    main()
