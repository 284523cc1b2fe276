"""Crops of real micrographs, as in the published Table 1: average precision, cross-entropy, accuracy, parameters.

    python experiments/pick/crops.py --data ../shared/data/cryoem --set bgal_10017 --seeds 0 1 2 --arms all
    python experiments/pick/crops.py --set bgal_10017 --crops 1000 --steps 384 --seeds 0 1 2 \\
        --arms "conv + turns" "conv, free logit + turns" "SO(3)-AL1 cubes" "ball 3k, R = 16"

45 x 45 pixels as stored (8 Å and 4 Å), wholly inside; every micrograph has mean 0 and standard deviation 1. One in ten
is centred on a label, the others lie at random, at least 8 (10) pixels from any label. Training crops come from the
training part of ``split.csv``, test crops from its validation part: other micrographs. The seed draws crops and
weights; networks, steps and rates are those of simulated.py. Writes ``results/crops.json``.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import torch
from crop_arms import ARMS, Crops, train_arms
from torch import Tensor

from equivox.formats.mrc import read_mrc
from equivox.run.seeds import generator_for

RESULTS = Path(__file__).parent / "results" / "crops.json"
SIDE, REACH = 45, 22
APART_PX = {"bgal_10017": 8.0, "apoferritin_10146": 10.0}
"""Negatives lie at least so far from any label."""


def labelled(folder: Path, part: str) -> list[tuple[Tensor, Tensor]]:
    """Normalised micrographs of a part and their labels (y, x)."""
    places = defaultdict(list)
    with (folder / "coordinates.txt").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            places[row["image_name"]].append((float(row["y_coord"]), float(row["x_coord"])))
    with (folder / "split.csv").open(newline="") as file:
        names = [row["micrograph"] for row in csv.DictReader(file) if row["split"] == part]
    found = []
    for name in names:
        image = torch.from_numpy(read_mrc(folder / f"{name}.mrc", mmap=False).data.copy()).float()
        if name in places:  # of apoferritin only some micrographs were labelled by hand
            found.append(((image - image.mean()) / image.std(), torch.tensor(places[name])))
    return found


def cut(image: Tensor, centres: Tensor) -> Tensor:
    """Crops about the nearest pixels."""
    corners = centres.round().long() - REACH
    return torch.stack([image[y : y + SIDE, x : x + SIDE] for y, x in corners.tolist()])


def inside(centres: Tensor, image: Tensor) -> Tensor:
    """Whether a whole crop fits."""
    last = torch.tensor(image.shape) - 1 - REACH
    nearest = centres.round()
    return ((nearest >= REACH) & (nearest <= last)).all(1)


def make_crops(micrographs: list[tuple[Tensor, Tensor]], count: int, apart: float, draw: torch.Generator) -> Crops:
    """As many of each micrograph as it can give, in random order."""
    wanted = count // 10
    positives, negatives = [], []
    for image, labels in micrographs:
        positives.append(cut(image, labels[inside(labels, image)]))
        size = torch.tensor(image.shape) - 1 - 2 * REACH
        places = REACH + size * torch.rand(4 * count // len(micrographs), 2, generator=draw)
        places = places[torch.cdist(places.round(), labels).amin(1) >= apart]
        negatives.append(cut(image, places[: -(-(count - wanted) // len(micrographs))]))
    some = [
        parts[torch.randperm(len(parts), generator=draw)[:number]]
        for parts, number in ((torch.cat(positives), wanted), (torch.cat(negatives), count - wanted))
    ]
    if [len(part) for part in some] != [wanted, count - wanted]:
        raise SystemExit(f"these micrographs give {[len(part) for part in some]} crops; ask for fewer than {count}.")
    kinds = torch.cat([torch.zeros(wanted), torch.full((count - wanted,), 3.0)]).long()
    return Crops(torch.cat(some)[:, None], (kinds == 0).float(), kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cryoem"))
    parser.add_argument("--set", choices=sorted(APART_PX), default="bgal_10017")
    parser.add_argument("--steps", type=int, default=0, help="of the plain networks; without: 24 epochs, projected 5")
    parser.add_argument("--arms", nargs="+", choices=("all", *ARMS), default=["all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--crops", type=int, default=4000)
    parser.add_argument("--test-crops", type=int, default=4000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    folder, apart = chosen.data / chosen.set, APART_PX[chosen.set]
    training, test = labelled(folder, "train"), labelled(folder, "val")
    for seed in chosen.seeds:
        parts = (
            make_crops(micrographs, count, apart, generator_for(seed, purpose))
            for micrographs, count, purpose in (
                (training, chosen.crops, "train"),
                (test, chosen.test_crops, "test"),
            )
        )
        train_arms(RESULTS, {"set": chosen.set}, chosen.arms, seed, *parts, most_steps=chosen.steps)


if __name__ == "__main__":
    main()
