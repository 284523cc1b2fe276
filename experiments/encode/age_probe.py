"""Age and sex of the labelled brains from codes, upright and turned, beside what needs no network.

    python experiments/encode/age_probe.py --data ../shared/data/adult/ixi_brain_2mm --model untrained
    python experiments/encode/age_probe.py --data ../shared/data/adult/ixi_brain_2mm --model brain-encoder-t1

Ridge (logistic for sex) on the invariants, 5 repetitions of 5 folds as given with the data, penalties by folds within
training part. Read-outs are fitted to upright scans; test scans are given upright and in one rotation each, uniform
on SO(3), sampled once from the 2 mm scan. Beside the codes: shares of tissue by depth, counted in the scan's own voxels
(`tissue_depth.py`), alone and with the codes. A turn in the file's header leaves them as they are; in the lines
"files resampled" the file itself was turned: its voxels interpolated on a grid of the same size, counted again.
Writes results/age_<name>.json; codes and shares are kept in --cache.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from equivox.errors import ModelFolderError
from equivox.formats.atomic import write_json
from equivox.formats.nifti import open_scan
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import random_rotations
from equivox.geometry.space import Volume
from equivox.metrics.class_intervals import class_numbers
from equivox.metrics.grouped import draw_groups, measure, weighted_mean
from equivox.metrics.probing import predicted_classes
from equivox.metrics.regression import regression_numbers
from equivox.nets.brain_encoders import build_encoder
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import BrainSource, open_brain
from equivox.tasks.encode.extraction import BrainMask, find_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.probe import fit_readout, trivial_features
from equivox.tasks.encode.stored_codes import Codes
from equivox.tasks.encode.targets import Targets, make_folds, read_targets

RESAMPLED_SIDE = 100
"""Voxels of the cube into which a scan is turned: 200 mm at 2 mm."""


def encoder(name: str, seed: int) -> EncodeModel:
    """A model folder, or an encoder that was never trained (``untrained``, ``untrained-brain_cnn``, ...)."""
    if not name.startswith("untrained"):
        return load_encode_model(name)
    kind = name.partition("-")[2] or "brain_encoder"
    generator = torch.Generator().manual_seed(seed)
    return EncodeModel(build_encoder(kind, generator=generator))


def codes_of(
    model: EncodeModel, subjects: list[Subject], cache: Path, seed: int, *, turned: int = 0
) -> dict[str, np.ndarray]:
    """Invariants upright and turned (NaN where a scan was not turned), histograms, volumes; kept in the cache.

    ``turned`` scans, evenly from all, get one random rotation each; 0 turns all. For an encoder of ours the features
    before its last layers are kept too (``pooled_*``): ``untrained`` reads them through last layers never trained.
    """
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            return dict(stored)
    rows: dict[str, list[list[float]]] = {"upright": [], "turned": [], "histogram": [], "volume_ml": []}
    kept: dict[str, list[torch.Tensor]] = {}
    plain = untrained_twin(model)
    if plain is not None:
        rows |= {"untrained_upright": [], "untrained_turned": []}
    turns = random_rotations(len(subjects), generator=generator_for(seed, "haar"))
    few = {round(step) for step in np.linspace(0, len(subjects) - 1, turned or len(subjects))}
    for number, (subject, turn) in enumerate(zip(subjects, turns, strict=True)):
        assert subject.path is not None
        source = open_brain(subject.path, voxel_size_mm=model.voxel_size_mm)
        for name in ("upright", "turned"):
            if name == "turned" and number not in few:
                rows[name].append([float("nan")] * len(rows["upright"][-1]))
                if plain is not None:
                    rows[f"untrained_{name}"].append([float("nan")] * len(rows["untrained_upright"][-1]))
                continue
            brain = source.sample(side=model.side, turn=turn if name == "turned" else None)
            if plain is None:
                rows[name].append(model.code([brain]).scalars[0].tolist())
                continue
            with torch.inference_mode():
                pooled = model.network.pooled(brain.volume[None], brain.mask[None])  # type: ignore[operator]
                rows[name].append(model.network.head(*pooled)[2][0].tolist())  # type: ignore[operator]
                rows[f"untrained_{name}"].append(plain.head(*pooled)[2][0].tolist())  # type: ignore[operator]
            for part, values in zip(("polar", "axial", "statistics"), pooled, strict=True):
                kept.setdefault(f"pooled_{name}_{part}", []).append(values[0])
        rows["histogram"].append(source.histogram.tolist())
        rows["volume_ml"].append([source.volume_ml])
        if number % 20 == 0:
            print(f"{number + 1}/{len(subjects)}  {time.process_time():.0f} CPU s", flush=True)
    found = {name: np.array(values) for name, values in rows.items()}
    found |= {name: torch.stack(values).numpy() for name, values in kept.items()}
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, **found)
    return found


def tissues_of(subjects: list[Subject], moved: Tensor, cache: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Shares of tissue by depth of every scan, and of the moved ones after the file was turned and resampled."""
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            return torch.from_numpy(stored["upright"]), torch.from_numpy(stored["resampled"])
    turns = random_rotations(len(subjects), generator=generator_for(seed, "haar"))
    rows: list[list[Tensor]] = [[], []]
    for subject, turn, own in zip(subjects, turns, moved.tolist(), strict=True):
        assert subject.path is not None
        volume = open_scan(subject.path).frame(0)
        brain = find_brain(volume)
        rows[0].append(BrainSource(volume, brain).tissue_depths())
        rows[1].append(torch.full_like(rows[0][-1], float("nan")))
        if own:
            rows[1][-1] = BrainSource(*resampled(volume, brain, turn)).tissue_depths()
    upright, turned = (torch.stack(part) for part in rows)
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.savez(cache, upright=upright.numpy(), resampled=turned.numpy())
    return upright, turned


def resampled(volume: Volume, brain: BrainMask, turn: Tensor) -> tuple[Volume, BrainMask]:
    """The extracted brain turned about its middle on a cube of its own voxel size (cubic); mask: above one half."""
    inside = brain.inside.numpy()
    middle = np.argwhere(inside).mean(axis=0)
    axis = np.arange(RESAMPLED_SIDE) - (RESAMPLED_SIDE - 1) / 2
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1) @ turn.numpy()
    where = np.moveaxis(points, -1, 0) + middle[:, None, None, None]
    values = ndimage.map_coordinates(volume.data[0].double().numpy() * inside, where, order=3)
    mask = ndimage.map_coordinates(inside.astype(float), where, order=3) > 0.5
    moved = replace(volume, data=torch.from_numpy(values.clip(0.0)).float()[None])
    return moved, BrainMask(torch.from_numpy(mask), 0.0, ())


def untrained_twin(model: EncodeModel) -> torch.nn.Module | None:
    """An encoder from the same seed that was never trained, where all but the last layers agree; else None."""
    network = model.network
    if not hasattr(network, "pooled") or not hasattr(network, "head"):
        return None
    options: dict[str, Any] = {
        "architecture": "brain_encoder",
        "side": model.side,
        "voxel_size_mm": model.voxel_size_mm,
    }
    with suppress(ModelFolderError):
        options = dict(model.folder.config["networks"]["encoder"])
    twin = build_encoder(str(options.pop("architecture")), **options, generator=torch.Generator().manual_seed(0)).eval()
    state, other = network.state_dict(), twin.state_dict()
    shared = [name for name in state if not name.startswith("head.")]
    same = all(name in other and torch.equal(state[name], other[name]) for name in shared)
    return twin if same else None


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
    parser.add_argument("--turned", type=int, default=0, help="scans that are also turned; 0 for all")
    parser.add_argument("--name", default=None, help="what the results are called; the model's name by default")
    parser.add_argument("--cache", type=Path, default=Path("build/encode"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [subject for subject in read_subject_table(options.data).subjects if subject.age is not None]
    groups = [subject.id for subject in subjects]
    name = options.name or Path(options.model).name
    started = time.process_time()
    model = encoder(options.model, options.seed)
    found = codes_of(model, subjects, options.cache / f"age_{name}.npz", options.seed, turned=options.turned)
    moved_too = torch.from_numpy(~np.isnan(found["turned"]).any(axis=1))
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    sets = {name: (torch.from_numpy(found["upright"]), torch.from_numpy(found["turned"]))}
    if "untrained_upright" in found:
        both = torch.from_numpy(found["untrained_upright"]), torch.from_numpy(found["untrained_turned"])
        sets["the same, never trained"] = both
    shares, again = tissues_of(subjects, moved_too, options.cache / "tissues.npz", options.seed)
    own, other = sets[name]
    sets |= {
        f"{name} with tissue by depth": (torch.cat([own, shares], 1), torch.cat([other, shares], 1)),
        f"{name} with tissue by depth, files resampled": (torch.cat([own, shares], 1), torch.cat([other, again], 1)),
        "tissue by depth, files resampled": (shares, again),
    }
    histogram = tuple(tuple(row) for row in found["histogram"].tolist())
    volumes = tuple(found["volume_ml"][:, 0].tolist())
    tissues = tuple(tuple(row) for row in shares.tolist())
    document: dict[str, object] = {
        "model": options.model,
        "seed": options.seed,
        "brains": len(subjects),
        "turned": int(moved_too.sum()),
    }
    for target in ("age", "sex"):
        targets = read_targets(subjects, target)
        folds, told = make_folds(subjects, targets, count=5, repeats=5, seed=0, given=target == "age")
        plain = Codes("", sets[name][0], ("",) * len(subjects), histogram, volumes, (), tissues)
        lines = {one: (features, features) for one, features in trivial_features(subjects, targets, plain)} | sets
        results = {}
        for line, (upright, turned) in lines.items():
            still, moved, still_class, moved_class = read_out(upright, turned, targets, groups, folds)
            if target == "age":
                first = regression_numbers(still, targets.values, draws)
                own = draws.columns(moved_too.nonzero()[:, 0])
                again, second = (
                    regression_numbers(one[:, moved_too], targets.values[moved_too], own) for one in (still, moved)
                )
                worse = [(one - targets.values).abs().mean(dim=0)[moved_too] for one in (moved, still)]
                results[line] = {
                    "upright": first.as_dict(), "upright_of_the_turned": again.as_dict(), "turned": second.as_dict(),
                    "turned_over_upright": second.mae.value / again.mae.value,
                    "turned_minus_upright": measure(worse[0] - worse[1], weighted_mean, own).as_dict(),
                }  # fmt: skip
                print(f"{line:32s} MAE {first.mae.value:6.2f} ± {first.mae_sd:.2f}; of the turned scans upright "
                      f"{again.mae.value:6.2f} turned {second.mae.value:6.2f}")  # fmt: skip
            else:
                first_class = class_numbers(still_class, still, targets.labels, classes=2, resamples=draws)
                own = draws.columns(moved_too.nonzero()[:, 0])
                second_class = class_numbers(
                    moved_class[:, moved_too], moved[:, moved_too], targets.labels[moved_too], classes=2, resamples=own
                )
                results[line] = {"upright": first_class.as_dict(), "turned": second_class.as_dict()}
                print(f"{line:32s} BACC {first_class.bacc.value:.3f} turned {second_class.bacc.value:.3f}")
        document[target] = {"folds": told, "results": results}
    upright, turned = (one[moved_too] for one in sets[name])
    spread = (upright - upright.mean(0)).norm(dim=1).square().mean().sqrt()
    document["I_over_spread"] = float((turned - upright).norm(dim=1).mean() / spread)
    document["I_plain"] = float(((turned - upright).norm(dim=1) / upright.norm(dim=1)).mean())
    document["cpu_s"] = round(time.process_time() - started, 1)
    write_json(options.out / f"age_{name}.json", document)


if __name__ == "__main__":
    main()
