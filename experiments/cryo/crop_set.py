"""Write the simulated crop set (training and test) as one .npz file.

    python experiments/cryo/crop_set.py --snr 0.1 --seed 0 --out crops.npz

Arrays: ``train_images``, ``train_positive``, ``train_kind``, ``test_*``; ``kinds`` names the numbers of ``*_kind``.
"""

from __future__ import annotations

import argparse

import numpy as np

from equivox.run.seeds import generator_for
from equivox.simulate.crop_set import KINDS, crop_particle, crop_set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=8000)
    parser.add_argument("--test", type=int, default=6000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="crops.npz")
    given = parser.parse_args()
    particle = crop_particle(generator=generator_for(given.seed, "particle"))
    arrays: dict[str, np.ndarray] = {"kinds": np.array(KINDS)}
    for split, count in (("train", given.train), ("test", given.test)):
        found = crop_set(count, particle, snr=given.snr, generator=generator_for(given.seed, split))
        arrays[f"{split}_images"] = found.images.numpy().astype(np.float16)
        arrays[f"{split}_positive"] = found.positive.numpy()
        arrays[f"{split}_kind"] = found.kind.numpy()
    np.savez(given.out, **arrays)
    print(f"{given.train} training and {given.test} test crops, signal to noise {given.snr:g}: {given.out}")


if __name__ == "__main__":
    main()
