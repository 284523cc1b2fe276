"""What the pooled features of all labelled brains, upright and turned, say of further goals.

    python experiments/encode/age_probe.py --data ../shared/data/adult/ixi_brain_2mm --model brain-encoder-t1
    python experiments/encode/pooled_goals.py --data ../shared/data/adult/ixi_brain_2mm --model brain-encoder-t1

Pose and errors of scans against themselves turned; the mirror test (a true scan or its mirror image, told by the sign
of an odd read-out of pseudo-invariants, by folds); pose between different brains of split=test,
against rigid registration (SimpleITK) to the MNI152 template and, as a measure of that reference, to another brain; age
with fewer labels; E and age by some angles of some scans. Writes results/pooled_goals.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from equivox.formats.atomic import write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_from_vector
from equivox.metrics.grouped import draw_groups, measure, weighted_mean
from equivox.metrics.regression import regression_numbers
from equivox.nets.brain_code import BrainCode, align_codes
from equivox.nets.brain_pooling import TissueDepthHistogram
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.probe import fit_readout, held_out, trivial_features
from equivox.tasks.encode.robustness import ANGLES_DEG, cube_axes
from equivox.tasks.encode.stored_codes import Codes
from equivox.tasks.encode.targets import make_folds, read_targets
from equivox.tasks.encode.verify import code_errors, resampling_floor


def heads_of(head: torch.nn.Module, found: dict[str, np.ndarray], kind: str) -> list[BrainCode]:
    """Codes of every scan from what was pooled of it."""
    parts = [torch.from_numpy(found[f"pooled_{kind}_{part}"]) for part in ("polar", "axial", "statistics")]
    with torch.inference_mode():
        return [head(*(part[index : index + 1] for part in parts)) for index in range(len(parts[0]))]


def itself(upright: list[BrainCode], turned: list[BrainCode], turns: torch.Tensor) -> dict[str, float]:
    """Every scan against itself in one random rotation."""
    rows = torch.tensor([code_errors(*one) for one in zip(upright, turned, turns, strict=True)]).double()
    scalars = torch.cat([one.scalars for one in upright]).double()
    drift = (torch.cat([one.scalars for one in turned]).double() - scalars).norm(dim=1)
    spread = (scalars - scalars.mean(0)).norm(dim=1)
    values = torch.stack([torch.linalg.svdvals(one.polar[0].double()) for one in upright])
    ratio = values[:, 1] / values[:, 0]
    return {
        "scans": len(rows),
        "pose_median_deg": float(rows[:, 3].median()), "pose_p95_deg": float(rows[:, 3].quantile(0.95)),
        "pose_max_deg": float(rows[:, 3].max()),
        "E_polar": float(rows[:, 0].mean()), "E_axial_over_polar": float(rows[:, 1].mean()),
        "I": float(rows[:, 2].mean()), "I_over_spread": float(drift.mean() / spread.mean()),
        "singular_value_ratio_mean": float(ratio.mean()), "singular_value_ratio_least": float(ratio.min()),
    }  # fmt: skip


def drift_by_part(
    model: EncodeModel, found: dict[str, np.ndarray], moved: torch.Tensor, subjects: list[Subject]
) -> dict[str, object]:
    """Which invariants a random rotation changes: shares of the squared change and of the spread, and I of each part.

    In the shipped encoder an invariant is one pooled statistic, so the parts are known by their places. Age is read out
    (`fold0` to `fold4`) of what is left without the outermost layer of depth that is counted.
    """
    bins = model.network.get_submodule("histogram")
    assert isinstance(bins, TissueDepthHistogram)
    upright = torch.from_numpy(found["upright"]).double()
    change = torch.from_numpy(found["turned"]).double()[moved] - upright[moved]
    spread = upright - upright.mean(0)
    first = found["pooled_upright_statistics"].shape[1] - 1 - bins.count
    places = torch.arange(upright.shape[1])
    inside = (places >= first) & (places < first + bins.count)
    layers = {
        layer: inside & ((places - first) % len(bins.layers) == number) for number, layer in enumerate(bins.layers)
    }
    outermost = layers[min(layers)]
    parts = {
        "means of fields and products": places < first,
        "histogram of tone by depth": inside,
        **{f"of it layer {layer}": own for layer, own in layers.items()},
        "volume and Gram matrix of landmarks and vectors": places >= first + bins.count,
        "all but the outermost layer": ~outermost,
        "all but the histogram": ~inside,
    }
    table: dict[str, object] = {
        name: {
            "invariants": int(own.sum()),
            "share_of_change": float(change[:, own].square().sum() / change.square().sum()),
            "share_of_spread": float(spread[:, own].square().sum() / spread.square().sum()),
            "I_over_spread": float(change[:, own].norm(dim=1).mean() / spread[:, own].norm(dim=1).mean()),
        }
        for name, own in parts.items()
    }
    targets, groups = read_targets(subjects, "age"), [one.id for one in subjects]
    folds, _ = make_folds(subjects, targets, count=5, repeats=5, seed=0, given=True)
    predicted, _ = held_out(upright[:, ~outermost], targets, groups, folds, seed=0)
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    table["layers"] = list(bins.layers)
    table["age without the outermost layer"] = regression_numbers(predicted, targets.values, draws).as_dict()
    return table


def mirror(
    upright: list[BrainCode], turned: list[BrainCode], moved: torch.Tensor, fold: torch.Tensor, resamples: int = 2000
) -> dict[str, object]:
    """Goal G9. A mirror image has the negative of every pseudo-invariant, exactly (tests of the encoder): an odd
    read-out that is right about a scan is right about its mirror image, so its balanced accuracy is the share of scans
    of the right sign. Fitted to upright scans of the other folds, asked about upright and about turned ones.
    """
    found: dict[str, object] = {"scans": len(upright), "turned": len(turned)}
    sets = {
        "16 pseudo-scalars of the code": [torch.cat([one.pseudoscalars for one in part]) for part in (upright, turned)],
        "products of polar and axial vectors": [
            torch.cat([torch.einsum("bpx,bax->bpa", one.polar, one.axial).flatten(1) for one in part])
            for part in (upright, turned)
        ],
    }
    for name, (still, other) in sets.items():
        right = {"upright": torch.zeros(len(still)).double(), "turned": torch.zeros(len(other)).double()}
        for label in fold.unique().tolist():
            rest = still[fold != label]
            _, best = max((signs_right(rest, 10.0**power), 10.0**power) for power in range(-4, 3))
            weights = odd_ridge(rest.double(), best)
            right["upright"][fold == label] = (still[fold == label].double() @ weights > 0).double()
            own = fold[moved] == label
            right["turned"][own] = (other[own].double() @ weights > 0).double()
        row: dict[str, object] = {"features": still.shape[1]}
        for kind, values in right.items():
            draw = torch.randint(len(values), (resamples, len(values)), generator=generator_for(0, "bootstrap"))
            low, high = values[draw].mean(1).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
            row[kind] = {"bacc": float(values.mean()), "low": low, "high": high}
        found[name] = row
    return found


def odd_ridge(rows: torch.Tensor, penalty: float) -> torch.Tensor:
    """Weights without an offset whose answer to true scans is near 1, so that mirrored ones have -1."""
    scale = rows.square().mean(0).sqrt().clamp_min(1e-12)
    inside = rows / scale
    kernel = inside @ inside.mT / inside.shape[1]
    right = torch.linalg.solve(kernel + penalty * torch.eye(len(rows)).double(), torch.ones(len(rows)).double())
    return (inside.mT @ right) / inside.shape[1] / scale


def signs_right(rows: torch.Tensor, penalty: float) -> float:
    """Share of held-out scans of the right sign in 5 folds."""
    fold = torch.arange(len(rows)) % 5
    right = [
        (rows[fold == one].double() @ odd_ridge(rows[fold != one].double(), penalty) > 0).double() for one in range(5)
    ]
    return float(torch.cat(right).mean())


def registered(path: Path, fixed: object) -> torch.Tensor:
    """Rotation fixed_from_moving by SimpleITK: correlation, two scales, from the centres of mass; RAS axes."""
    import SimpleITK as sitk  # noqa: N813 - its own habit

    moving = sitk.ReadImage(str(path), sitk.sitkFloat32)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 80)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=True)
    method.Execute(fixed, moving)
    matrix = torch.tensor(start.GetMatrix(), dtype=torch.float64).view(3, 3)  # moving_from_fixed in LPS
    flip = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    return (flip @ matrix @ flip).mT


def between(upright: list[BrainCode], subjects: list[Subject], brains: int, pairs: int) -> dict[str, object]:
    """Goal G5c: the rotation between two different brains against that of rigid registration."""
    import SimpleITK as sitk  # noqa: N813 - its own habit
    from nilearn.datasets import load_mni152_template

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    template = load_mni152_template(resolution=2)
    values = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(template.dataobj, dtype=np.float32).T))
    flip = np.diag([-1.0, -1.0, 1.0])
    values.SetSpacing((2.0, 2.0, 2.0))
    values.SetDirection((flip @ template.affine[:3, :3] / 2.0).flatten().tolist())
    values.SetOrigin((flip @ template.affine[:3, 3]).tolist())
    other = next(one for one in subjects if one.values["split"] == "train")
    fixed = {"MNI152": values, "another brain": sitk.ReadImage(str(other.path), sitk.sitkFloat32)}
    chosen = [place for place, one in enumerate(subjects) if one.values["split"] == "test"][:brains]
    start = time.process_time()
    turns = {
        name: torch.stack([registered(Path(str(subjects[place].path)), image) for place in chosen])
        for name, image in fixed.items()
    }
    every = list(itertools.combinations(range(len(chosen)), 2))
    order = torch.randperm(len(every), generator=generator_for(0, "pairs"))[:pairs].tolist()
    rows = []
    for first, second in (every[place] for place in order):
        found = align_codes(upright[chosen[first]], upright[chosen[second]]).rotation[0].double()
        wanted = {name: one[second].mT @ one[first] for name, one in turns.items()}
        rows.append(
            [float(geodesic_angle(found, one)) for one in wanted.values()]
            + [float(geodesic_angle(*wanted.values())), float(geodesic_angle(torch.eye(3).double(), wanted["MNI152"]))]
        )
    degrees = torch.rad2deg(torch.tensor(rows, dtype=torch.float64))
    names = ["against registration by MNI152", "against registration by another brain",
             "the two registrations", "no rotation against registration by MNI152"]  # fmt: skip
    table = {
        name: {
            "median_deg": float(column.median()), "p90_deg": float(column.quantile(0.9)),
            "max_deg": float(column.max()),
        }
        for name, column in zip(names, degrees.T, strict=True)
    }  # fmt: skip
    return {"pairs": len(rows), "brains": len(chosen), **table, "cpu_s": round(time.process_time() - start, 1)}


def fewer_labels(still: torch.Tensor, subjects: list[Subject], found: dict[str, np.ndarray]) -> dict[str, object]:
    """Age in the given folds, read-outs fitted to a share of the training part, drawn by the seed."""
    groups = [one.id for one in subjects]
    targets = read_targets(subjects, "age")
    folds, _ = make_folds(subjects, targets, count=5, repeats=5, seed=0, given=True)
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    histogram = tuple(tuple(row) for row in found["histogram"].tolist())
    plain = Codes("", still, ("",) * len(subjects), histogram, tuple(found["volume_ml"][:, 0].tolist()))
    lines = dict(trivial_features(subjects, targets, plain)) | {"encoder": still}
    table: dict[str, object] = {}
    for share in (1.0, 0.5, 0.25):
        row: dict[str, object] = {}
        for name, features in lines.items():
            if name in ("constant", "brain volume"):
                continue
            answers = torch.zeros(folds.shape, dtype=torch.float64)
            for repeat, labels in enumerate(folds):
                for fold in labels.unique().tolist():
                    rest = (labels != fold).nonzero()[:, 0]
                    order = torch.randperm(len(rest), generator=generator_for(0, "share", repeat, fold))
                    kept = torch.zeros(len(subjects), dtype=torch.bool)
                    kept[rest[order[: math.ceil(share * len(rest))]]] = True
                    readout = fit_readout(features, targets, groups, kept, seed=0, repeat=repeat, fold=fold)
                    answers[repeat, labels == fold] = readout.predict(features[labels == fold])[:, -1]
            row[name] = regression_numbers(answers, targets.values, draws).as_dict()
        table[f"{share:.0%}"] = {"labels": math.ceil(share * 128), **row}
    return table


def by_angle(
    model: EncodeModel, upright: list[BrainCode], subjects: list[Subject], scans: int, every: int
) -> dict[str, dict[str, object]]:
    """Goals G3 and G7: E beside what resampling does to the input, and age, by so many degrees; axes in turn."""
    test = [place for place, one in enumerate(subjects) if one.values["split"] == "test"]
    chosen = [test[round(step)] for step in np.linspace(0, len(test) - 1, scans)]
    targets = read_targets(subjects, "age")
    rest = torch.tensor([one.values["split"] != "test" for one in subjects])
    scalars = torch.cat([one.scalars for one in upright])
    readout = fit_readout(scalars, targets, [one.id for one in subjects], rest, seed=0)
    angles = [angle for angle in ANGLES_DEG if angle % every == 0]
    rows: dict[int, list[list[float]]] = {angle: [] for angle in angles}
    for number, place in enumerate(chosen):
        path = subjects[place].path
        assert path is not None
        source = open_brain(path, voxel_size_mm=model.voxel_size_mm)
        still = source.sample(side=model.side)
        before = model.code([still])
        for step, angle in enumerate(angles):
            turn = rotation_from_vector(cube_axes()[(number + 5 * step) % 13] * math.radians(angle))
            turned = source.sample(side=model.side, turn=turn)
            after = model.code([turned])
            years = readout.predict(torch.cat([before.scalars, after.scalars]))[:, -1]
            off = (years - targets.values[place]).abs().tolist()
            errors = code_errors(before, after, turn)
            rows[angle].append([errors[0], errors[3], resampling_floor(still.volume, turned.volume, turn), *off])
    table: dict[str, dict[str, object]] = {}
    draws = draw_groups([subjects[place].id for place in chosen], 2000, generator=generator_for(0, "bootstrap"))
    for angle, one in rows.items():
        values = torch.tensor(one, dtype=torch.float64)
        names = ("E", "pose_deg", "floor", "mae_upright", "mae_turned")
        table[str(angle)] = dict(zip(names, values.mean(0).tolist(), strict=True))
        change = measure(values[:, 4] - values[:, 3], weighted_mean, draws)
        table[str(angle)]["turned_minus_upright"] = change.as_dict()
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="brain-encoder-t1")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--brains", type=int, default=15, help="of split=test that are paired")
    parser.add_argument("--only-between", action="store_true", help="the pairs anew; the rest of --out stays")
    parser.add_argument("--only-drift", action="store_true", help="which invariants change; the rest of --out stays")
    parser.add_argument("--only-angles", action="store_true", help="turns by every --every degrees; the rest stays")
    parser.add_argument("--scans", type=int, default=5, help="that are turned by every --every degrees")
    parser.add_argument("--every", type=int, default=15, help="degrees, a multiple of 15")
    parser.add_argument("--cache", type=Path, default=Path("build/encode"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pooled_goals.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    subjects = [one for one in read_subject_table(given.data).subjects if one.age is not None]
    with np.load(given.cache / f"age_{Path(given.model).name}.npz", allow_pickle=False) as stored:
        found = dict(stored)
    model = load_encode_model(given.model)
    head = model.network.get_submodule("head")
    upright, turned = (heads_of(head, found, kind) for kind in ("upright", "turned"))
    turns = random_rotations(len(subjects), generator=generator_for(0, "haar"))
    moved = torch.from_numpy(~np.isnan(found["turned"]).any(axis=1))
    if given.only_drift:
        kept = json.loads(given.out.read_text())
        write_json(given.out, kept | {"drift_by_part": drift_by_part(model, found, moved, subjects)})
        return
    if given.only_angles:
        kept = json.loads(given.out.read_text())
        found_too = by_angle(model, upright, subjects, given.scans, given.every)
        write_json(given.out, kept | {"by_angle": {"scans": given.scans, **found_too}})
        return
    if given.only_between:
        kept = json.loads(given.out.read_text())
        write_json(given.out, kept | {"between_brains": between(upright, subjects, given.brains, given.pairs)})
        return
    document = {
        "model": model.name, "brains": len(subjects), "seed": 0, "machine": "2 cores of a cloud CPU, one thread",
        "itself": itself([one for one, kept in zip(upright, moved, strict=True) if kept], turned, turns[moved]),
        "drift_by_part": drift_by_part(model, found, moved, subjects),
        "mirror": mirror(upright, turned, moved, torch.tensor([int(one.values["fold0"]) for one in subjects])),
        "fewer_labels": fewer_labels(torch.cat([one.scalars for one in upright]).double(), subjects, found),
    }  # fmt: skip
    write_json(given.out, document)
    document["by_angle"] = {"scans": given.scans, **by_angle(model, upright, subjects, given.scans, given.every)}
    write_json(given.out, document)
    document["between_brains"] = between(upright, subjects, given.brains, given.pairs)
    document["cpu_s"] = round(time.process_time() - start, 1)
    write_json(given.out, document)


if __name__ == "__main__":
    main()
