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
import tempfile
from pathlib import Path

import torch
from crop_arms import ARMS, Crops, train_arms
from torch import Tensor

from equivox.formats.mrc import read_mrc
from equivox.run.seeds import generator_for
from equivox.simulate.crop_set import crop_particle, crop_set
from equivox.simulate.ctf import Microscope
from equivox.simulate.micrograph import simulate_micrograph
from equivox.simulate.micrograph_config import MicrographSimulation
from equivox.simulate.specimen import Specimen, specimen_from_map

RESULTS = Path(__file__).parent / "results" / "simulated.json"
SIDE, REACH = 45, 22


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


def gaussian_crops(snr: float, count: int, seed: int, purpose: str) -> Crops:
    """Of unit noise; one particle a seed."""
    particle = crop_particle(generator=generator_for(seed, "particle"))
    found = crop_set(count, particle, snr=snr, generator=generator_for(seed, purpose))
    return Crops(found.images[:, None].float(), found.positive.float(), found.kind)


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
    for seed in chosen.seeds:
        if specimen is not None:
            training = make_crops(specimen, chosen.snr, chosen.crops, 1000 + seed)
            test = make_crops(specimen, chosen.snr, chosen.test_crops, 2000 + seed)
        else:
            training = gaussian_crops(chosen.snr, chosen.crops, seed, "train")
            test = gaussian_crops(chosen.snr, chosen.test_crops, seed, "test")
        fixed = {"set": chosen.set, "snr": chosen.snr}
        train_arms(RESULTS, fixed, chosen.arms, seed, training, test, most_steps=chosen.steps)


if __name__ == "__main__":
    main()
