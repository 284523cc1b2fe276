"""Pretraining inside each training fold: `soe`, masked reconstruction and VICReg at 32 voxels, age on the rest.

    python experiments/encode/objectives_folds.py --data ../shared/data/adult/ixi_brain_2mm

Five folds (column fold0). For each, the encoder is pretrained without labels on the other four alone (and the scans
without an age, which no fold asks about; those of split=val among the four only validate), for --share of the passes of
objectives.py; then ridge on its invariants is fitted to the four and asked about the fold: upright, and every second
scan in a random rotation. Neither encoder nor read-out has seen a scan that it is asked about. Beside them on the same
folds: the mean age, the intensity histogram, our encoder as drawn.
Writes results/objectives_folds.json after every encoder; what is there is kept, so a run that was cut goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch
from objectives import LINES, SIDE, VOXEL_MM, Views, trained

from equivox.formats.atomic import atomic_path, write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.metrics.grouped import draw_groups, measure, weighted_mean
from equivox.run.seeds import generator_for
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.model import EncodeModel, load_encode_model
from equivox.tasks.encode.probe import fit_readout
from equivox.tasks.encode.targets import read_targets
from equivox.tasks.encode.train import TrainRun, pretrain_encoder
from equivox.tasks.encode.train_config import pretrain_preset

RECIPES = ("soe", "masked", "vicreg")
FOLDS = ("0", "1", "2", "3", "4")


def write_split(data: Path, fold: str, table: Path) -> dict[str, int]:
    """The table of subjects with the column split rewritten for one fold; how many scans take which part."""
    with (data / "subjects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    counts: dict[str, int] = {}
    for row in rows:
        row["split"] = "test" if row["fold0"] == fold else ("val" if row["split"] == "val" else "train")
        counts[row["split"]] = counts.get(row["split"], 0) + 1
    table.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(table) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return counts


def pretrained(
    recipe: str, fold: str, data: Path, work: Path, share: float
) -> tuple[EncodeModel, float, dict[str, int]]:
    """The encoder of one fold, CPU seconds of its training, scans of every part; one that is there is read."""
    folder = work / "folds" / recipe / fold
    spent = folder / "cpu_s.json"
    counts = write_split(data, fold, work / "folds" / f"subjects_fold{fold}.csv")
    if not spent.is_file():
        preset, values = LINES[recipe]
        config = pretrain_preset(preset).with_values(**{"side": SIDE, "voxel_size_mm": VOXEL_MM, **values})
        epochs = max(1, round(share * config.epochs))
        config = config.with_values(epochs=epochs, validate_every=epochs)
        start = time.process_time()
        pretrain_encoder(
            [work / "folds" / f"subjects_fold{fold}.csv"], config,
            TrainRun(out=folder, images=data / "t1", device="cpu", overwrite=True, seed=0),
            progress=lambda epoch, row: print(f"  {recipe} fold {fold} epoch {epoch} "
                                              f"{time.process_time() - start:.0f} CPU s {dict(row)}", flush=True),
        )  # fmt: skip
        write_json(spent, {"cpu_s": round(time.process_time() - start, 1)})
    return load_encode_model(folder / "model"), json.loads(spent.read_text())["cpu_s"], counts


def asked(
    model: EncodeModel, views: Views, subjects: list[Subject], folds: tuple[str, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """Predicted age of every scan of the folds, ridge fitted to the others: upright, and turned where it was turned."""
    codes: dict[tuple[str, int], torch.Tensor] = {}
    for number, (kind, place, _) in enumerate(views.keys):
        if kind == "upright" or (kind == "haar" and subjects[place].values["fold0"] in folds):
            codes[kind, place] = model.code([views.brain(number)]).scalars[0]
    still = torch.stack([codes["upright", place] for place in range(len(subjects))])
    return {fold: answers_of(still, codes, subjects, fold) for fold in folds}


def answers_of(
    still: torch.Tensor, codes: dict[tuple[str, int], torch.Tensor], subjects: list[Subject], fold: str
) -> dict[str, dict[str, float]]:
    """Answers about one fold."""
    test = torch.tensor([one.values["fold0"] == fold for one in subjects])
    readout = fit_readout(still, read_targets(subjects, "age"), [one.id for one in subjects], ~test, seed=0)
    places = test.nonzero()[:, 0].tolist()
    turned = [place for place in places if ("haar", place) in codes]
    found = {"upright": dict(zip(places, readout.predict(still[test])[:, -1].tolist(), strict=True))}
    if turned:
        rows = torch.stack([codes["haar", place] for place in turned])
        found["turned"] = dict(zip(turned, readout.predict(rows)[:, -1].tolist(), strict=True))
    return {kind: {subjects[place].id: years for place, years in one.items()} for kind, one in found.items()}


def summary(folds: dict[str, dict[str, dict[str, float]]], ages: dict[str, float]) -> dict[str, object]:
    """Errors over all folds that are there: 95 % bootstraps over people."""

    def over(values: dict[str, float]) -> dict[str, object]:
        draws = draw_groups(list(values), 2000, generator=generator_for(0, "bootstrap"))
        return measure(torch.tensor(list(values.values())).double(), weighted_mean, draws).as_dict()

    off = {
        kind: {name: abs(years - ages[name]) for one in folds.values() for name, years in one.get(kind, {}).items()}
        for kind in ("upright", "turned")
    }
    table: dict[str, object] = {"scans": len(off["upright"]), "mae": over(off["upright"])}
    per_fold = [[abs(years - ages[name]) for name, years in one["upright"].items()] for one in folds.values()]
    table["mae_by_fold"] = {fold: sum(row) / len(row) for fold, row in zip(folds, per_fold, strict=True)}
    if off["turned"]:
        table["turned_scans"] = len(off["turned"])
        table["mae_of_the_turned_upright"] = over({name: off["upright"][name] for name in off["turned"]})
        table["mae_turned"] = over(off["turned"])
        change = {name: value - off["upright"][name] for name, value in off["turned"].items()}
        table["turned_minus_upright"] = over(change)
    return table


def conclude(document: dict[str, Any], ages: dict[str, float]) -> None:
    """Every line's numbers over all of its folds, and over those that every recipe has."""
    lines = document["lines"]
    common = [
        fold for fold in FOLDS if all(fold in lines.get(recipe, {"answers": ()})["answers"] for recipe in RECIPES)
    ]
    document["common_folds"] = common
    for line in lines.values():
        line["summary"] = summary(line["answers"], ages)
        if common:
            line["summary_common_folds"] = summary({fold: line["answers"][fold] for fold in common}, ages)


def trivial(subjects: list[Subject]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """The mean age and the intensity histogram on the same folds."""
    shares = []
    for one in subjects:
        assert one.path is not None
        shares.append(open_brain(one.path, voxel_size_mm=VOXEL_MM).histogram)
    features = {"mean age": torch.zeros(len(subjects), 1).double(), "intensity histogram": torch.stack(shares)}
    return {name: {fold: answers_of(rows, {}, subjects, fold) for fold in FOLDS} for name, rows in features.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", nargs="*", choices=FOLDS, default=list(FOLDS))
    parser.add_argument("--share", type=float, default=1.0, help="of the passes of objectives.py, for every recipe")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, "trivial"], default=[*RECIPES, "trivial"])
    parser.add_argument("--work", type=Path, default=Path("build/encode/objectives"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "objectives_folds.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    subjects = [one for one in read_subject_table(given.data).subjects if one.age is not None]
    ages = {one.id: float(one.age) for one in subjects if one.age is not None}
    views = Views(subjects, given.work / "views.pt")
    document = json.loads(given.out.read_text()) if given.out.is_file() else {"lines": {}}
    document |= {
        "side": SIDE, "voxel_size_mm": VOXEL_MM, "seed": 0, "folds": "fold0", "share_of_passes": given.share,
        "machine": "2 cores of a cloud CPU, one thread",
    }  # fmt: skip
    lines = document["lines"]
    for fold in given.folds:
        for recipe in [one for one in RECIPES if one in given.only]:
            line = lines.setdefault(recipe, {"changed": LINES[recipe][1], "training": {}, "answers": {}})
            if fold in line["answers"]:
                continue
            model, cpu_s, counts = pretrained(recipe, fold, given.data, given.work, given.share)
            line["training"][fold] = {"cpu_s": cpu_s, "scans": counts}
            line["answers"][fold] = asked(model, views, subjects, (fold,))[fold]
            conclude(document, ages)
            write_json(given.out, document)
            off = [abs(years - ages[name]) for name, years in line["answers"][fold]["upright"].items()]
            print(f"{recipe} fold {fold}: {cpu_s:.0f} CPU s, {sum(off) / len(off):.2f}", flush=True)
    if "trivial" in given.only:
        rows = trivial(subjects)
        drawn, _ = trained("untrained", given.data, given.work, subjects)
        rows["ours, as drawn"] = asked(drawn, views, subjects, FOLDS)
        for name, answers in rows.items():
            lines[name] = {"answers": answers}
        conclude(document, ages)
        write_json(given.out, document)


if __name__ == "__main__":
    main()
