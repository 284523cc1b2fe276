"""Write the shipped model folder: weights of a training, the card with what was measured, the licence.

    equivox encode pretrain ../shared/data/adult/ixi_brain_2mm/subjects.csv \
        --images ../shared/data/adult/ixi_brain_2mm/t1 --preset head --out build/brain-encoder-t1
    python experiments/encode/encoder_goals.py --model build/brain-encoder-t1/model --scans 10 --turns 1
    python experiments/encode/encoder_goals.py --model build/brain-encoder-t1/model --cube 3
    python experiments/encode/ship_encoder.py --model build/brain-encoder-t1/model
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import equivox
from equivox.tasks.encode.train_certificate import certify_encoder
from equivox.weights.folder import read_model_folder, write_model_folder

NAME = "brain-encoder-t1"
LABELS = {
    "clean": "clean", "gamma": "gamma 0.7 to 1.4", "bias": "linear shading up to 20 %", "noise": "5 % noise",
    "centroid": "centre off by up to 3 mm", "thick": "4 mm slices", "all": "all of these at once",
}  # fmt: skip
LICENSE_TEXT = """The weights in model.safetensors were learnt from brains of the IXI dataset (Information
eXtraction from Images, EPSRC GR/S21533/02), https://brain-development.org/ixi-dataset/, licensed CC BY-SA 3.0
(https://creativecommons.org/licenses/by-sa/3.0/), in the 2 mm 8-bit brain-extracted version that the Center for
Biomedical Image Computing and Analytics (CBICA, University of Pennsylvania) distributes with NiChart_Project; cropped
and re-oriented by this project. The weights are given under the same licence, CC BY-SA 3.0, as far as they derive from
it. No label map took part. The software that reads them, equivox, is under Apache-2.0.
"""


def card(goals: dict[str, Any], parameters: int, size_mb: float, scalars: int) -> str:
    rows = "\n".join(
        f"| {LABELS[name]} | {row['views']} | {row['pose_median_deg']:.2f} | {row['pose_p95_deg']:.2f} | "
        f"{row['pose_max_deg']:.2f} | {row['E_polar']:.3f} | {row['E_axial']:.3f} | {row['I_over_spread']:.2f} |"
        for name, row in goals["conditions"].items()
    )
    cube, ratio = goals["cube"], goals["singular_value_ratio"]
    symmetries = f"{goals.get('cube_elements', 4)} of 48, {len(goals.get('cube_scans', [0]))} brains of `split=test`"
    exact = max(cube["polar_float32"], cube["axial_float32"])
    return f"""---
license: cc-by-sa-3.0
library_name: equivox
tags: [brain, mri, t1w, equivariance, self-supervised]
---

# {NAME}

Encodes brain-extracted T1-weighted scans, in any orientation, as 64 polar and 32 axial vectors that turn with the head,
{scalars} numbers that do not, and 16 that change sign in a mirror. {parameters:,} parameters, {size_mb:.1f} MB.
Nothing is registered.

## Use

    equivox encode embed scans/ --model {NAME} --out codes
    equivox encode align FIXED MOVING --model {NAME} --out alignment

For research; not a medical device.

## How it works

`BrainEncoder` on 64 voxels of 3.3 mm. Log intensities lose their quadratic trend inside the brain (shading) and get a
fixed spread (gamma); three levels of steerable convolutions with moment-matched 5-tap kernels, two halvings; moments,
mean vectors, products and a histogram of tone by depth (without the outermost of five layers, which are the tips of the
brain alone: there the grid decides what is seen), all weighed by the brain's mask. The symmetries of the cube are exact
for any weights.

## Training

Self-supervised, without labels: `equivox encode pretrain --preset head`, seed 0. **The convolutions are as they were
drawn; only the last layers are learnt**: the vectors so that two views of a scan (turned; gamma, shading, contrast,
noise, thick slices, a wrong centre) agree in direction; each invariant is a pooled statistic, standardised and weighed
by how much of its variance lies between persons. 114 brains of IXI (`split=train` and the 4 unlabelled), 4 views each;
`split=val` and `split=test` took no part.

## Measured

Relative pose of two views of one scan, {goals["scans"]} brains of `split=test`, Haar rotations, seed {goals["seed"]},
in degrees; E: relative error of the vectors; I: change of the invariants over their spread between brains
(`python experiments/encode/encoder_goals.py`):

| second view | views | median | 95 % | most | E polar | E axial | I / spread |
|---|---|---|---|---|---|---|---|
{rows}

The cube's symmetries, {symmetries}: vectors {exact:.1e} of the largest in single, {cube["polar_float64"]:.1e}
in double precision; invariants, which are standardised differences of large numbers and are summed in double,
{cube["scalars_float32"]:.1e} and {cube["scalars_float64"]:.1e}. Second over first singular value of the vectors:
{ratio["mean"]:.2f} on average, {ratio["least"]:.2f} at least.

## Attribution

Trained on images derived from the IXI dataset, brain-development.org, CC BY-SA 3.0; see `LICENSE`.

## What it is not for

* Scans with their skull, other contrasts, children, lesions: not tested. It has seen one scanner (3 T).
* Any clinical decision. Its invariants say something of age; they are no measure of health.
* Telling persons apart by their vectors: those say how a brain lies and hardly anything else (of two upright brains of
  the training set they differ by 2 % of their length once aligned). What a brain is like is in the invariants.
* The upright direction: vectors fix the pose of a brain relative to another scan, not to an atlas.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--goals", type=Path, default=Path(__file__).parent / "results" / "encoder_goals.json")
    parser.add_argument("--out", type=Path, default=Path(equivox.__file__).parent / "models" / NAME)
    given = parser.parse_args()
    folder = read_model_folder(given.model)
    goals = json.loads(given.goals.read_text())
    if goals["weights_sha256"] != folder.config["weights_sha256"]:
        raise SystemExit("the numbers were measured with other weights; run encoder_goals.py again.")
    encoder = folder.networks()["encoder"]
    state = encoder.state_dict()
    parameters = sum(one.numel() for one in encoder.parameters())
    size_mb = sum(one.numel() * one.element_size() for one in state.values()) / 1e6
    certificate = certify_encoder(encoder, int(folder.config["networks"]["encoder"]["side"]))
    certificate["generic_angles"] = {
        name: {"E_polar": row["E_polar"], "pose_median_deg": row["pose_median_deg"]}
        for name, row in goals["conditions"].items()
    }
    written = write_model_folder(
        given.out,
        name=NAME,
        task="encode",
        behaviour="equivox",
        networks=folder.config["networks"],
        weights={"encoder": state},
        card=card(goals, parameters, size_mb, encoder.sizes["scalars"]),
        certificate=certificate,
        license_text=LICENSE_TEXT,
        extra={
            "input": {"side": 64, "voxel_size_mm": 3.3, "contrast": "T1w, brain-extracted", "axes": "RAS"},
            "provenance": {
                "data": "IXI (Hammersmith), 2 mm, 114 brains: split=train and unlabelled; no labels used",
                "preset": "head", "seed": 0,
                "numbers": goals["conditions"],
            },
            "license": "CC-BY-SA-3.0",
        },
        overwrite=True,
    )  # fmt: skip
    print(f"{written.path}: {parameters} parameters, {size_mb:.2f} MB")


if __name__ == "__main__":
    main()
