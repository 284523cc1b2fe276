"""The table of simulated crops: average precision, cross-entropy, accuracy, parameters.

    python experiments/pick/simulated.py --set gaussians --snr 0.1 --crops 4000 --seeds 0 1 2 --arms all
    python experiments/pick/simulated.py --set gaussians --snr 0.1 --crops 1000 --steps 768 --seeds 0 1 2 \\
        --arms "conv + turns" "conv, free logit + turns" "SO(3)-AL1 cubes" "ball 3k, R = 16"
    python experiments/pick/simulated.py --set antibody --snr 0.4 --crops 2000 --arms linear "conv + turns" "ball 3k"

``gaussians`` are the crops of :mod:`equivox.simulate.crop_set`: a particle of 30 Gaussians with the transfer of a
microscope in white noise, decoys, particles off the middle. ``antibody`` are cut from whole micrographs of 1IGY (map
of ``structures/``) at 8 Å a pixel with CTF, coloured noise, decoys, broken parts, dirt, carbon, other micrographs for
training and test, normalised by micrograph. Crops have 45 x 45 pixels; 10 % hold a particle within 2.5 pixels of the
centre; of the others 30 % are particles 13 to 19 pixels off, 25 % decoys, the rest elsewhere. Adam, 2e-3 along a
cosine, batches of 128, last epoch; the seed draws the particle, the crops and the weights. The plain networks pass 24
times over the crops (turned by quarters and mirrored, each by itself, where the name says so), the projected ones, ten
times dearer, 5 times (12 times: "longer") and without turns; ``--steps`` sets the plain ones' steps, of which the
others get 5/24 or 12/24.
Writes ``results/simulated.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equivox.formats.mrc import read_mrc
from equivox.metrics.picking import precision_recall
from equivox.nets.projected_presets import build_projected
from equivox.run.seeds import generator_for
from equivox.simulate.crop_set import KINDS, crop_particle, crop_set
from equivox.simulate.ctf import Microscope
from equivox.simulate.micrograph import simulate_micrograph
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.specimen import Specimen, specimen_from_map

RESULTS = Path(__file__).parent / "results" / "simulated.json"
SIDE, REACH = 45, 22
ARMS: dict[str, dict[str, Any]] = {
    "linear": {"preset": "linear_cryo45", "epochs": 24},
    "conv": {"preset": "conv_cryo45", "epochs": 24},
    "conv + turns": {"preset": "conv_cryo45", "epochs": 24, "turns": True},
    "conv, free logit + turns": {"preset": "conv_cryo45_free", "epochs": 24, "turns": True},
    "resnet + turns": {"preset": "resnet_cryo45", "epochs": 24, "turns": True},
    "SO(2)-AL1": {"preset": "so2_cryo45", "epochs": 5},
    "SO(3)-AL1 cubes": {"preset": "so3_cryo45", "epochs": 5},
    "ball 3k": {"preset": "ball_cryo45_3k", "epochs": 5},
    "ball 3k, R = 16": {"preset": "ball_cryo45_3k", "grid": "d4opt-16", "epochs": 5},
    "ball 3k, R = 16, longer": {"preset": "ball_cryo45_3k", "grid": "d4opt-16", "epochs": 12},
    "SO(3)-AL1 cubes, longer": {"preset": "so3_cryo45", "epochs": 12},
    "SO(2)-AL1, longer": {"preset": "so2_cryo45", "epochs": 12},
    "ball 15k": {"preset": "ball_cryo45_15k", "epochs": 5},
    "ball 15k, R = 16": {"preset": "ball_cryo45_15k", "grid": "d4opt-16", "epochs": 5},
}
TABLE = ("linear", "conv", "conv + turns", "conv, free logit + turns", "resnet + turns", "SO(2)-AL1", "SO(3)-AL1 cubes",
         "ball 3k, R = 16")  # fmt: skip
"""``--arms all``."""


class Crops(NamedTuple):
    """Pictures (crop, 1, y, x), 1 for a particle in the middle, and what is seen (index into ``KINDS``)."""

    images: Tensor
    labels: Tensor
    kinds: Tensor


def load_specimen(data: Path) -> Specimen:
    """1IGY at 4 Å a voxel."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "1igy.mrc"
        plain.write_bytes(gzip.decompress((data / "structures" / "1igy_64_4A.mrc.gz").read_bytes()))
        volume = torch.from_numpy(read_mrc(plain, mmap=False).data.copy())
    return specimen_from_map("1igy", volume.float(), voxel_size_angstrom=4.0)


def crop(image: Tensor, y: float, x: float) -> Tensor | None:
    """45 x 45 pixels about the nearest pixel, or None beyond the edge."""
    row, column = round(y), round(x)
    part = image[row - REACH : row + REACH + 1, column - REACH : column + REACH + 1]
    return part if row >= REACH and column >= REACH and part.shape == (SIDE, SIDE) else None


def make_crops(specimen: Specimen, snr: float, count: int, seed: int) -> Crops:
    """From as many micrographs as it takes."""
    draw = torch.Generator().manual_seed(seed)
    settings = MicrographSimulation(snr=snr, particles=60, decoys=0.4)
    positives: list[Tensor] = []
    negatives: dict[str, list[Tensor]] = {"off": [], "decoy": [], "away": []}
    wanted = count // 10
    shares = {"off": 0.30, "decoy": 0.25, "away": 0.45}
    while len(positives) < wanted or any(
        len(negatives[kind]) < share * (count - wanted) for kind, share in shares.items()
    ):
        made = simulate_micrograph(specimen, settings, Microscope(), generator=draw)
        image = (made.image - made.image.mean()) / made.image.std()
        centers = made.positions_px.flip(1)  # (y, x)

        def jitter(reach: float) -> tuple[float, float]:
            dy, dx = (reach * (2.0 * torch.rand(2, generator=draw) - 1.0)).tolist()
            return dy, dx

        for y, x in centers.tolist():
            for _ in range(2):
                dy, dx = jitter(2.5)
                part = crop(image, y + dy, x + dx)
                if part is not None:
                    positives.append(part)
            for _ in range(6):
                angle, far = (
                    torch.rand(2, generator=draw) * torch.tensor([6.2832, 6.0]) + torch.tensor([0, 13.0])
                ).tolist()
                spot = torch.tensor(
                    [y + far * torch.sin(torch.tensor(angle)), x + far * torch.cos(torch.tensor(angle))]
                )
                part = crop(image, float(spot[0]), float(spot[1]))
                if part is not None and float((centers - spot).norm(dim=1).min()) >= 8.0:
                    negatives["off"].append(part)
        for y, x in made.decoys_px.flip(1).tolist():
            for _ in range(8):
                dy, dx = jitter(2.5)
                part = crop(image, y + dy, x + dx)
                if part is not None and float((centers - torch.tensor([y, x])).norm(dim=1).min()) >= 8.0:
                    negatives["decoy"].append(part)
        for y, x in (REACH + torch.rand(500, 2, generator=draw) * (512 - SIDE)).tolist():
            part = crop(image, y, x)
            if part is not None and float((centers - torch.tensor([y, x])).norm(dim=1).min()) >= 8.0:
                negatives["away"].append(part)
    chosen = [positives[:wanted]]
    chosen += [negatives[kind][: round(share * (count - wanted))] for kind, share in shares.items()]
    kinds = torch.cat([torch.full((len(some),), number) for number, some in enumerate(chosen)])
    return Crops(torch.stack([one for some in chosen for one in some])[:, None].float(), (kinds == 0).float(), kinds)


def turned(crops: Tensor, draw: torch.Generator) -> Tensor:
    """Every crop by a quarter turn of its own, half of them mirrored."""
    kind = torch.randint(8, (len(crops),), generator=draw)
    found = torch.empty_like(crops)
    for number in range(8):
        some = torch.rot90(crops[kind == number], number % 4, (2, 3))
        found[kind == number] = some.flip(3) if number >= 4 else some
    return found


def gaussian_crops(snr: float, count: int, seed: int, purpose: str) -> Crops:
    """Of unit noise; one particle a seed."""
    particle = crop_particle(generator=generator_for(seed, "particle"))
    found = crop_set(count, particle, snr=snr, generator=generator_for(seed, purpose))
    return Crops(found.images[:, None].float(), found.positive.float(), found.kind)


def run(arm: str, seed: int, training: Crops, test: Crops, most_steps: int = 0) -> dict[str, Any]:
    """Train one network and judge it; ``most_steps`` is for the plain networks, in place of their epochs."""
    settings = ARMS[arm]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = build_projected(settings["preset"], grid=settings.get("grid"))
    draw = torch.Generator().manual_seed(seed)
    crops, labels, _ = training
    epochs, steps = settings["epochs"], -(-len(crops) // 128)
    if most_steps:
        epochs = round(most_steps * (epochs / 24) / steps)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    start = time.process_time()
    network.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(crops), generator=draw).split(128):
            batch = crops[chosen]
            if settings.get("turns"):
                batch = turned(batch, draw)
            loss = nn.functional.binary_cross_entropy_with_logits(network(batch)[:, 0], labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    cost = time.process_time() - start
    network.eval()
    with torch.inference_mode():
        logits = torch.cat([network(part)[:, 0] for part in test.images.split(128)])
    truth = test.labels
    against = {}
    for number, name in enumerate(KINDS[1:], 1):  # the positives and one kind of negatives alone
        some = (test.kinds == 0) | (test.kinds == number)
        against[name] = precision_recall(logits[some], truth[some] > 0.5, labels=int(truth.sum())).area
    return {
        "arm": arm, "seed": seed, "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": epochs, "crops": len(crops), "test_crops": len(truth), "training_cpu_s": round(cost, 1),
        "ap": precision_recall(logits, truth > 0.5, labels=int(truth.sum())).area,
        "ap_against": against,
        "bce": float(nn.functional.binary_cross_entropy_with_logits(logits, truth)),
        "accuracy": float(((logits > 0) == (truth > 0.5)).float().mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cryoem"))
    parser.add_argument("--set", choices=("antibody", "gaussians"), default="antibody")
    parser.add_argument("--steps", type=int, default=0, help="of the plain networks; without: 24 epochs, projected 5")
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=("all", *ARMS),
        default=["linear", "conv + turns", "conv, free logit + turns", "ball 3k"],
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--snr", type=float, default=0.05)
    parser.add_argument("--crops", type=int, default=3000)
    parser.add_argument("--test-crops", type=int, default=2000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    specimen = load_specimen(chosen.data) if chosen.set == "antibody" else None
    keys = ("set", "snr", "arm", "seed", "crops")
    for seed in chosen.seeds:
        if specimen is not None:
            training = make_crops(specimen, chosen.snr, chosen.crops, 1000 + seed)
            test = make_crops(specimen, chosen.snr, chosen.test_crops, 2000 + seed)
        else:
            training = gaussian_crops(chosen.snr, chosen.crops, seed, "train")
            test = gaussian_crops(chosen.snr, chosen.test_crops, seed, "test")
        for arm in TABLE if chosen.arms == ["all"] else chosen.arms:
            rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            key = (chosen.set, chosen.snr, arm, seed, chosen.crops)
            if any(tuple(old[name] for name in keys) == key for old in rows):
                continue
            row = {"set": chosen.set, "snr": chosen.snr, **run(arm, seed, training, test, chosen.steps)}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps([*rows, row], indent=1) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
