"""Synthetic atrophy: severity k against 0 by a linear read-out of codes, upright and turned, beside the volumes.

    awk 'NR == 1 || NR % 8 == 2' ../shared/data/adult/ixi_brain_2mm/subjects.csv > build/encode/some.csv
    equivox simulate atrophy build/encode/some.csv --images ../shared/data/adult/ixi_brain_2mm/t1 \
        --labels ../shared/data/adult/ixi_brain_2mm/seg --out build/encode/atrophy2 --severities 0 2 --each
    (the same with --out build/encode/atrophy1 --severities 1, and --out build/encode/atrophy0 --severities 0 --seed 1)
    python experiments/encode/atrophy_probe.py --atrophy build/encode/atrophy2 build/encode/atrophy1 \
        --model brain-encoder-t1 --untouched ../shared/data/adult/ixi_brain_2mm --again build/encode/atrophy0

Everything here is synthetic: healthy brains, deformed. 5 x 5 folds by subject, so that all severities of one lie in one
fold; the read-out is fitted to upright brains. Controls: with --untouched, codes of the same brains as they are (kept
by age_probe.py) against severity 0: whether resampling shows; with --again, severity 0 against severity 0 shifted by
another seed, both resampled: this must be at chance. Writes results/atrophy_<folder>_<model>.json.
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


def control(
    chosen: list[Subject], found: dict[str, np.ndarray], other: dict[str, np.ndarray], known: list[str]
) -> dict[str, object]:
    """Severity 0 against other copies of the same brains, by codes and by the intensity histogram; chance is 0.5."""
    zero = [place for place, one in enumerate(chosen) if one.values["severity"] == "0"]
    pairs = [(place, known.index(chosen[place].values["subject"])) for place in zero
             if chosen[place].values["subject"] in known]  # fmt: skip
    both = [replace(chosen[place], values={**chosen[place].values, "copy": copy},
                    group=chosen[place].values["subject"])
            for copy in ("one", "other") for place, _ in pairs]  # fmt: skip
    targets = read_targets(both, "copy", kind="class")
    groups = [one.group for one in both]
    folds, _ = make_folds(both, targets, count=5, repeats=5, seed=0, given=False)
    draws = draw_groups(groups, 2000, generator=generator_for(0, "bootstrap"))
    told: dict[str, object] = {"brains": len(both)}
    for line, own in (("codes", "upright"), ("intensity histogram", "histogram")):
        rows = np.concatenate([found[own][[place for place, _ in pairs]], other[own][[row for _, row in pairs]]])
        features = torch.from_numpy(rows)
        scores, _, classes, _ = read_out(features, features, targets, groups, folds)
        told[line] = class_numbers(classes, scores, targets.labels, classes=2, resamples=draws).as_dict()
    return told


def encoded(
    options: argparse.Namespace, folder: Path, turned: int = 0, only: str = ""
) -> tuple[list[Subject], dict[str, np.ndarray]]:
    """The synthetic brains of a folder (of one severity) and their codes, kept in the cache."""
    every = read_subject_table(folder / "atrophy.csv").subjects
    levels = sorted({one.values["severity"] for one in every} & ({only} if only else {"0", "1", "2", "3", "4"}))
    chosen = [
        one
        for level in levels
        for one in [subject for subject in every if subject.values["severity"] == level][: options.most or None]
    ]
    cache = options.cache / f"{folder.name}_{Path(options.model).name}.npz"
    return chosen, codes_of(encoder(options.model, options.seed), chosen, cache, options.seed, turned=turned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atrophy", type=Path, nargs="+", required=True, help="folders; the first names the results")
    parser.add_argument("--again", type=Path, help="folder with severity 0 of the same brains by another seed")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=0, help="brains of each severity; 0 for all")
    parser.add_argument("--untouched", type=Path, help="data set that age_probe.py has encoded with the same model")
    parser.add_argument("--cache", type=Path, default=Path("build/encode"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    name = f"{options.atrophy[0].name}_{Path(options.model).name}"
    parts = [encoded(options, folder) for folder in options.atrophy]
    chosen = [one for part, _ in parts for one in part]
    kinds = ("upright", "turned", "histogram")
    found = {kind: np.concatenate([codes[kind] for _, codes in parts]) for kind in kinds}
    levels = sorted({one.values["severity"] for one in chosen})
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
        with np.load(options.cache / f"age_{Path(options.model).name}.npz", allow_pickle=False) as stored:
            plain = {kind: stored[kind] for kind in ("upright", "histogram")}
        known = [one.id for one in read_subject_table(options.untouched).subjects if one.age is not None]
        document["control_untouched"] = control(chosen, found, plain, known)
    if options.again is not None:
        others, codes = encoded(options, options.again, turned=1, only="0")
        document["control_again"] = control(chosen, found, codes, [one.values["subject"] for one in others])
    print({kind: told for kind, told in document.items() if kind.startswith("control")})
    document["cpu_s"] = round(time.process_time() - started, 1)
    write_json(options.out / f"atrophy_{name}.json", document)


if __name__ == "__main__":
    main()
