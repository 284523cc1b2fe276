"""Put the model folders ``tetris``, ``cath-10arch``, ``residue-environment`` together from weights and results.

python experiments/shapes/build_models.py tetris --weights W/tetris_library/seed0.pt
python experiments/shapes/build_models.py cath --weights W/cath.pt
python experiments/shapes/build_models.py residues --weights W/steerable_local_frame_0.pt
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cath
import residues
import tetris
import torch
from certify import ANGLES_DEG, certificate
from tetris_data import NAMES, library_pieces, random_rotations
from torch import Tensor

from equivox.geometry.rotations import rotation_from_vector
from equivox.nets.shape_net import ShapeNet
from equivox.tasks.shapes.config import DataConfig, InputConfig
from equivox.tasks.shapes.data import rotate_volume
from equivox.tasks.shapes.source_residues import ResidueSource
from equivox.weights.folder import write_model_folder

MODELS = Path(__file__).parents[2] / "src" / "equivox" / "models"
HERE = Path(__file__).parent
RESULTS = HERE / "results"
LICENSE = (HERE / "model_license.txt").read_text()


def build_tetris(weights: str) -> None:
    """The eight pieces."""
    saved = torch.load(weights, weights_only=True)
    network = ShapeNet(**saved["network"])
    network.load_state_dict(saved["state"])
    start = random_rotations(1, 8, seed=77)

    def render(rotation: Tensor) -> Tensor:
        return library_pieces(rotation.double() @ start, tetris.SIDE, tetris.CELL)[0]

    still = render(torch.eye(3))
    axis = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, 3.0]), dim=0)
    floor = {}
    for angle in ANGLES_DEG:
        turn = rotation_from_vector(axis * torch.deg2rad(torch.tensor(float(angle))))
        twice = torch.stack([rotate_volume(piece, turn) for piece in still])
        floor[str(angle)] = round(float((twice - render(turn)).square().mean().sqrt() / still.std()), 6)
    recorded = json.loads((RESULTS / "tetris_library.json").read_text())
    write(
        "tetris",
        network,
        saved["network"],
        list(NAMES),
        InputConfig(kind="tetris", side=tetris.SIDE, cell=float(tetris.CELL)),
        (HERE / "card_tetris.md").read_text().replace("{numbers}", tetris_table(recorded)),
        certificate(network, saved["network"], render, "the pieces, in random orientations, each rendered anew", floor),
        "eight procedural pieces, own work; trained on one random orientation of each (seed 0)",
    )


def build_cath(weights: str) -> None:
    """Ten architectures; the rows of the three classes are cut off the last layer."""
    saved = torch.load(weights, weights_only=True)
    options = {**saved["network"], "classes": 10}
    state = dict(saved["state"])
    for name in ("head.2.weight", "head.2.bias"):
        state[name] = state[name][:10].clone()
    network = ShapeNet(**options)
    network.load_state_dict(state)
    domains = cath.Domains()
    chosen = torch.arange(0, len(domains.split), 28)

    def render(rotation: Tensor) -> Tensor:
        return domains.fields(chosen, rotation.expand(len(chosen), 3, 3))

    paths = {arm: RESULTS / f"cath_{arm}.json" for arm in cath.ARMS}
    recorded = {arm: json.loads(path.read_text()) for arm, path in paths.items() if path.exists()}
    card = (HERE / "card_cath.md").read_text().replace("{numbers}", cath_table(recorded))
    write(
        "cath-10arch",
        network,
        options,
        list(domains.classes),
        InputConfig(
            kind="points", side=cath.SIDE, channels=domains.channels, spacing=cath.SPACING, sigma=cath.SIGMA,
            trace="chain",
        ),
        card.replace("{epochs}", str(saved["epochs"])),
        certificate(
            network, options, render, "the domains, coordinates turned", {str(angle): 0.0 for angle in ANGLES_DEG}
        ),
        "data/proteins/cath_ca.npz, all ten splits (held-out numbers: five folds, docs/experiments/shapes.md)",
    )  # fmt: skip


def build_residues(weights: str) -> None:
    """The 20 amino acids."""
    saved = torch.load(weights, weights_only=True)
    network = ShapeNet(**saved["network"])
    network.load_state_dict(saved["state"])
    data = DataConfig(data=str(residues.DATA))
    source = ResidueSource.from_file(residues.DATA, residues.INPUT, data)
    chosen = list(range(0, len(source.shapes), len(source.shapes) // 40))[:40]

    def render(rotation: Tensor) -> Tensor:
        return residues.fields(source, chosen, rotation.expand(len(chosen), 3, 3))

    recorded = json.loads((RESULTS / "residues_all.json").read_text())
    card = (HERE / "card_residues.md").read_text().replace("{numbers}", residue_table())
    for name in ("train", "test"):
        card = card.replace(f"{{{name}}}", f"{recorded['runs'][0][name]:,}")
    write(
        "residue-environment",
        network,
        saved["network"],
        list(source.classes),
        residues.INPUT,
        card.replace("{epochs}", str(recorded["settings"]["epochs"])),
        certificate(
            network, saved["network"], render, "environments, coordinates turned", {str(a): 0.0 for a in ANGLES_DEG}
        ),
        "data/proteins/environments.npz, splits 0 to 6 (seed 0)",
    )


def residue_table() -> str:
    """A line per network, the shipped one first."""
    lines = [
        "| network | training residues x epochs | local frame | balanced | random rotation | balanced | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("residues_all", "residues", "residues_plain"):
        path = RESULTS / f"{name}.json"
        recorded = json.loads(path.read_text()) if path.exists() else {"runs": []}
        for row in recorded["runs"]:
            numbers = [row[key][one] for key in ("local_frame", "random_rotation") for one in ("accuracy", "balanced")]
            lines.append(
                f"| {row['arm']} | {row['train']:,} x {recorded['settings']['epochs']} | "
                + " | ".join(f"{x:.3f}" for x in numbers)
                + f" | {row['train_cpu_s']:.0f} |"
            )
    return "\n".join(lines)


def tetris_table(recorded: dict[str, Any]) -> str:
    """Mean over seeds, standard deviation, range."""
    lines = ["| network | seeds | accuracy | SD over seeds | least | most |", "|---|---|---|---|---|---|"]
    for arm, row in recorded["summary"].items():
        lines.append(
            f"| {arm} | {row['seeds']} | {row['mean']:.3f} | {row['sd']:.3f} | {row['least']:.3f} | {row['most']:.3f} |"
        )
    return "\n".join(lines)


def cath_table(recorded: dict[str, dict[str, Any]]) -> str:
    """Held-out scores over the folds."""
    lines = [
        "| network | parameters | folds | 10 architectures | balanced | 3 classes | balanced |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, content in recorded.items():
        for name, what in (("as_they_lie", "as they lie"), ("random_rotation", "in random rotations")):
            row, folds = content["pooled"][name], len(content["folds"])
            numbers = " | ".join(
                f"{row[key]:.3f}" for key in ("10arch", "10arch_balanced", "3class", "3class_balanced")
            )
            lines.append(f"| {arm}, {what} | {content['parameters']:,} | {folds} of 5 | {numbers} |")
    return "\n".join(lines)


def write(
    name: str,
    network: ShapeNet,
    options: dict[str, Any],
    classes: list[str],
    grid: InputConfig,
    card: str,
    found: dict[str, Any],
    data: str,
) -> None:
    """Write one folder."""
    folder = write_model_folder(
        MODELS / name,
        name=name,
        task="shapes",
        behaviour="equivox",
        networks={"classify": {"architecture": "shape_net", **options}},
        weights={"classify": network.state_dict()},
        card=card,
        certificate=found,
        license_text=LICENSE,
        extra={
            "input": grid.as_dict(),
            "output": {"classes": classes},
            "provenance": {"data": data, "experiments": "docs/experiments/shapes.md"},
            "license": "Apache-2.0",
        },
        overwrite=True,
    )
    print(folder.path, sum(file.stat().st_size for file in folder.path.iterdir()), "bytes")
    print(json.dumps(found["generic_angles"], indent=1), found["cube_group"])


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=["tetris", "cath", "residues"])
    parser.add_argument("--weights", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"tetris": build_tetris, "cath": build_cath, "residues": build_residues}[args.which](args.weights)


if __name__ == "__main__":
    main()
