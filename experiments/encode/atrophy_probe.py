"""Synthetic atrophy: severity k against 0 by a linear read-out of codes, upright and turned, beside the volumes.

    awk 'NR == 1 || NR % 8 == 2' ../shared/data/adult/ixi_brain_2mm/subjects.csv > build/encode/some.csv
    equivox simulate atrophy build/encode/some.csv --images ../shared/data/adult/ixi_brain_2mm/t1 \
        --labels ../shared/data/adult/ixi_brain_2mm/seg --out build/encode/atrophy2 --severities 0 2 --each
    python experiments/encode/atrophy_probe.py --atrophy build/encode/atrophy2 --model brain-encoder-t1 \
        --untouched ../shared/data/adult/ixi_brain_2mm

Everything here is synthetic: healthy brains, deformed. 5 x 5 folds by subject, so that all severities of one lie in one
fold; the read-out is fitted to upright brains. With --untouched, codes of the same brains as they are (kept by
age_probe.py) against severity 0: whether resampling gives labels away. Writes results/atrophy_<folder>_<model>.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from age_probe import codes_of, encoder, read_out

from equivox.formats.atomic import write_json
from equivox.formats.subjects import Subject, read_subject_table
from equivox.metrics.class_intervals import class_numbers
from equivox.metrics.grouped import draw_groups
from equivox.run.seeds import generator_for
from equivox.tasks.encode.targets import make_folds, read_targets


def control(options: argparse.Namespace, chosen: list[Subject], found: dict[str, np.ndarray]) -> dict[str, object]:
    """Severity 0 against the same brains untouched, by the codes and by the intensity histogram; chance is 0.5."""
    with np.load(options.cache / f"age_{Path(options.model).name}.npz", allow_pickle=False) as stored:
        plain = {name: stored[name] for name in ("upright", "histogram")}
    known = [one.id for one in read_subject_table(options.untouched).subjects if one.age is not None]
    zero = [place for place, one in enumerate(chosen) if one.values["severity"] == "0"]
    pairs = [(place, known.index(chosen[place].values["subject"])) for place in zero
             if chosen[place].values["subject"] in known]  # fmt: skip
    both = [replace(chosen[place], values={**chosen[place].values, "touched": touched},
                    group=chosen[place].values["subject"])
            for touched in ("yes", "no") for place, _ in pairs]  # fmt: skip
    targets = read_targets(both, "touched", kind="class")
    groups = [one.group for one in both]
    folds, _ = make_folds(both, targets, count=5, repeats=5, seed=0, given=False)
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    told: dict[str, object] = {"brains": len(both)}
    for line, own in (("codes", "upright"), ("intensity histogram", "histogram")):
        rows = np.concatenate([found[own][[place for place, _ in pairs]], plain[own][[row for _, row in pairs]]])
        features = torch.from_numpy(rows)
        scores, _, classes, _ = read_out(features, features, targets, groups, folds)
        told[line] = class_numbers(classes, scores, targets.labels, classes=2, resamples=draws).as_dict()
    print(f"untouched against severity 0: {told}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atrophy", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=0, help="brains of each severity; 0 for all")
    parser.add_argument("--untouched", type=Path, help="data set that age_probe.py has encoded with the same model")
    parser.add_argument("--cache", type=Path, default=Path("build/encode"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = read_subject_table(options.atrophy / "atrophy.csv").subjects
    levels = sorted({one.values["severity"] for one in every})
    chosen = [
        one
        for level in levels
        for one in [subject for subject in every if subject.values["severity"] == level][: options.most or None]
    ]
    started = time.process_time()
    name = f"{options.atrophy.name}_{Path(options.model).name}"
    found = codes_of(encoder(options.model, options.seed), chosen, options.cache / f"{name}.npz", options.seed)
    document: dict[str, object] = {"synthetic": True, "model": options.model, "comparisons": {}}
    for level in [one for one in levels if one != "0"]:
        places = [index for index, one in enumerate(chosen) if one.values["severity"] in ("0", level)]
        both = [replace(chosen[index], group=chosen[index].values["subject"]) for index in places]
        targets = read_targets(both, "severity", kind="class")
        groups = [one.values["subject"] for one in both]
        draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
        folds, told = make_folds(both, targets, count=5, repeats=5, seed=0, given=False)
        volumes = torch.tensor(
            [
                [float(one.values["ventricles_ml"]) / float(one.values["icv_ml"]),
                 float(one.values["hippocampus_ml"]) / float(one.values["icv_ml"])]
                for one in both
            ]
        ).double()  # fmt: skip
        lines = {
            "intensity histogram": (torch.from_numpy(found["histogram"][places]),) * 2,
            "ventricles and hippocampus / ICV": (volumes, volumes),
            name: (torch.from_numpy(found["upright"][places]), torch.from_numpy(found["turned"][places])),
        }
        results = {}
        for line, (upright, turned) in lines.items():
            still, moved, still_class, moved_class = read_out(upright, turned, targets, groups, folds)
            numbers = [
                class_numbers(classes, scores, targets.labels, classes=2, resamples=draws)
                for classes, scores in ((still_class, still), (moved_class, moved))
            ]
            results[line] = {"upright": numbers[0].as_dict(), "turned": numbers[1].as_dict()}
            print(
                f"synthetic 0 / {level}: {line:34s} AUC {numbers[0].auc:.3f} turned {numbers[1].auc:.3f} "
                f"BACC {numbers[0].bacc.value:.3f} turned {numbers[1].bacc.value:.3f}"
            )
        document["comparisons"][f"0 / {level}"] = {"brains": len(both), "folds": told, "results": results}  # type: ignore[index]
    if options.untouched is not None:
        document["control"] = control(options, chosen, found)
    document["cpu_s"] = round(time.process_time() - started, 1)
    write_json(options.out / f"atrophy_{name}.json", document)


if __name__ == "__main__":
    main()
