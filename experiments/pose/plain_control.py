"""The controls of the rotation stage: a plain 3D CNN of as many weights, and the published E(3)-CNN, on equal terms.

    python experiments/pose/plain_control.py pretrain --out W/plain --steps 600
    python experiments/pose/plain_control.py folds --start W/plain/last.pt --out W/plain_folds --counts 1 4 99
    python experiments/pose/plain_control.py pretrain --network published --log published_pretrain --out W/published
    python experiments/pose/plain_control.py folds --network published --start W/published/last.pt --out W/folds

The same crops and folds for all. The plain CNN: nine outputs (three axes), read as a rotation by the nearest
orthonormal frame, as the equivariant network's are. Rotations uniform on SO(3) are part of the crops. ``pretrain`` sees
simulated heads alone; ``folds`` goes on with half simulated, half real stacks of so many training fetuses (drawn by
seed) and judges the held-out fold with oracle crops and 12 views. ``--network ours`` does so with the equivariant
network from a checkpoint of ``rotate_train.py pretrain``.
``--network published``: the E(3)-CNN of E(3)-Pose (sampled e3nn kernels, norm pooling) with its own loss per voxel, on
the intensity alone, at half its width, 32^3 and three poolings (a quarter of a width of two copies does not exist).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from rotate_data import Augmentation, load_stacks
from rotate_train import DATA, RESULTS, judge, load_network, summary, train
from torch import Tensor, nn

from equivox.nets.object_symmetry import pool_field
from equivox.nets.pose import PoseNet
from equivox.tasks.pose.losses import rotation_loss


class PlainHeadNet(nn.Sequential):
    """Three levels as the equivariant network has them, 3^3 kernels, moments over space, nine numbers."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for channels_in, channels_out, pool in ((2, 4, True), (4, 8, True), (8, 10, False)):
            layers += [
                nn.Conv3d(channels_in, channels_out, 3, padding=1),
                nn.InstanceNorm3d(channels_out, affine=True),
                nn.ReLU(),
                *([nn.AvgPool3d(2)] if pool else []),
            ]
        super().__init__(*layers, nn.Flatten(2), Moments(), nn.Linear(40, 9))

    def __repr__(self) -> str:
        return f"PlainHeadNet({sum(p.numel() for p in self.parameters())} weights)"


class Moments(nn.Module):
    """Mean and first moments of every channel over an 8^3 grid: what a mean alone would lose is where things lie."""

    def forward(self, features: Tensor) -> Tensor:
        """(batch, channel, 512) to (batch, 4 channels)."""
        axis = (torch.arange(8, dtype=features.dtype) - 3.5) / 3.5
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
        basis = torch.cat([torch.ones_like(grid[:1]), grid])
        return torch.einsum("ncx,kx->nck", features, basis).flatten(1) / features.shape[-1]


class PublishedHeadNet(nn.Module):
    """The published network at half its width and 32^3; it sees the intensity, not the local contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.network = PoseNet(poolings=3, multiplier=1)

    def forward(self, crops: Tensor) -> Tensor:
        """(batch, 2, 32, 32, 32) to (batch, 9)."""
        return self.network.axes(crops[:, 1:])

    def __repr__(self) -> str:
        return f"PublishedHeadNet({sum(p.numel() for p in self.parameters())} weights)"


def judged_per_voxel(network: nn.Module, inputs: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """The published loss, and the pooled axes."""
    assert isinstance(network, PublishedHeadNet)
    field = network.network(inputs[:, 1:])
    return rotation_loss(field, rotation.mT).total.mean(), pool_field(field, "mirror")


NETWORKS: dict[str, type[nn.Module]] = {"plain": PlainHeadNet, "published": PublishedHeadNet}


def how(name: str) -> dict[str, Any]:
    """What ``train`` needs to know of a network."""
    if name == "published":  # its one channel must not be blanked
        return {"judged": judged_per_voxel, "augmentation": Augmentation(raw_dropout=0.0)}
    return {}


def load(path: str, name: str) -> nn.Module:
    """A checkpoint."""
    if name == "ours":
        return load_network(path)
    network = NETWORKS[name]()
    network.load_state_dict(torch.load(path, weights_only=True)["state"])
    return network.eval()


def pretrain(args: argparse.Namespace) -> None:
    """Simulated heads only."""
    torch.manual_seed(args.seed)
    network = NETWORKS[args.network]()
    print(network)
    train(args, network, [], args.batch, args.batch, **how(args.network))


def folds(args: argparse.Namespace) -> None:
    """Fine-tune and judge; rows are written after every run."""
    stacks = load_stacks(DATA / "epi")
    path = RESULTS / f"{args.name}.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    for count in args.counts:
        for seed in args.seeds:
            rows = []
            for fold in args.folds:
                known = sorted({s.fetus for s in stacks if s.primary and s.fold != fold})
                order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
                chosen = {known[index] for index in order[:count]}
                args.out, args.seed, args.log = f"{args.folder}/{count}_{seed}_{fold}", seed, ""
                network = load(args.start, args.network).train()
                train(
                    args, network, [s for s in stacks if s.primary and s.fetus in chosen], args.batch // 2, args.batch,
                    **how(args.network),
                )  # fmt: skip
                for stack in stacks:
                    if stack.fold == fold:
                        rows.append(judge([network.eval()], stack, views=12))  # type: ignore[list-item]
            run = {"fetuses": count, "seed": seed, "network": args.network, "summary": summary(rows), "stacks": rows}
            runs = [r for r in runs if (r["fetuses"], r["seed"], r["network"]) != (count, seed, args.network)] + [run]
            print(count, seed, {k: round(v, 3) for k, v in run["summary"].items()}, flush=True)
            path.write_text(json.dumps({"settings": vars(args), "runs": runs}, indent=1))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, steps, lr in (("pretrain", 600, 1e-2), ("folds", 110, 4e-3)):
        sub = verbs.add_parser(verb)
        sub.add_argument("--out", dest="out" if verb == "pretrain" else "folder", required=True)
        sub.add_argument("--steps", type=int, default=steps)
        sub.add_argument("--lr", type=float, default=lr)
        sub.add_argument("--batch", type=int, default=8)
        sub.add_argument("--pitch-sd", type=float, default=3.0)
        sub.add_argument("--stop", type=int, default=0)
        choices = ["plain", "published"] if verb == "pretrain" else ["plain", "published", "ours"]
        sub.add_argument("--network", choices=choices, default="plain")
        if verb == "pretrain":
            sub.add_argument("--seed", type=int, default=1)
            sub.add_argument("--log", default="plain_pretrain")
        else:
            sub.add_argument("--start", required=True)
            sub.add_argument("--name", default="plain_control")
            sub.add_argument("--counts", type=int, nargs="+", default=[99])
            sub.add_argument("--seeds", type=int, nargs="+", default=[0])
            sub.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"pretrain": pretrain, "folds": folds}[args.verb](args)


if __name__ == "__main__":
    main()
