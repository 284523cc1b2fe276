"""CATH: 3 classes and 10 architectures from C-alpha traces, cross-validated over the ten superfamily-disjoint splits.

    python experiments/shapes/cath.py folds --arm steerable
    python experiments/shapes/cath.py folds --arm plain
    python experiments/shapes/cath.py folds --arm steerable --ten
    python experiments/shapes/cath.py reductions
    python experiments/shapes/cath.py final --out W/cath.pt

Five folds of two splits each (train on the other eight), or with ``--ten`` one split each (train on nine). One network
with two heads per fold: the first ten logits are architectures, the last three classes; each loss counts only the
members of its task. No validation set is looked at: the schedule is fixed and the last weights are judged. The
steerable network sees every domain in one orientation, the plain one in 72: three random ones, each in the 24 rotations
of the cube, drawn anew at every access. Results go to ``results/cath_<arm>.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import roma
import torch
from torch import Tensor, nn

from equivox.formats.cath import read_cath
from equivox.geometry.chain import CHANNELS, chain_points
from equivox.geometry.density import gaussian_density
from equivox.geometry.rotations import cube_group
from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms
from equivox.nn.conv3d import SteerableConv3d
from equivox.testing import rotate_field

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "proteins" / "cath_ca.npz"
RESULTS = Path(__file__).parent / "results"
SIDE, SPACING, SIGMA = 17, 4.5, 3.0
NETWORK = {
    "channels_in": len(CHANNELS), "classes": 13, "fields": ((2, 2, 1), (8, 3, 2)),
    "kernel_sizes": (3, 5), "strides": (2, 1), "features": 64, "lowpass": 1.0, "dropout": 0.2, "hidden": 64,
}  # fmt: skip
ARMS = {"steerable": (ShapeNet, 0.03, 0.0), "plain": (PlainShapeNet, 0.002, 1e-3)}
"""Network, learning rate, decoupled weight decay."""
BATCH, EPOCHS = 16, 10


class Domains:
    """Points of all domains, their labels (-1: not in the task) and splits."""

    def __init__(self, labelled: bool = True) -> None:
        found = read_cath(DATA)
        count = len(found)
        self.points = []
        for index in range(count):
            positions = found.domain(index).float()
            kinds = torch.zeros(len(positions), dtype=torch.int64)
            self.points.append(chain_points(positions) if labelled else (positions, kinds))
        self.channels = len(CHANNELS) if labelled else 1
        self.names, self.split = found.domains, found.split.long()
        self.labels = torch.full((count, 2), -1)
        for column, task in enumerate(("10arch", "3class")):
            self.labels[found.tasks[task].domains.long(), column] = found.tasks[task].labels.long()
        self.classes = found.tasks["10arch"].classes

    def bent(self, chosen: Tensor, shear: float, displacement: float, draw: torch.Generator) -> Tensor:
        """Fields of some domains, each stretched and sheared a little, every point displaced [Å]."""
        maps = torch.eye(3) + shear * torch.randn(len(chosen), 3, 3, generator=draw)
        parts = []
        for index, bend in zip(chosen.tolist(), maps, strict=True):
            points, kinds = self.points[index]
            parts.append((points @ bend + displacement * torch.randn(points.shape, generator=draw), kinds))
        return self._drawn(parts)

    def fields(self, chosen: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Fields of some domains, turned if asked."""
        parts = [self.points[index] for index in chosen.tolist()]
        if rotations is not None:
            parts = [(p @ r.float().mT, c) for (p, c), r in zip(parts, rotations, strict=True)]
        return self._drawn(parts)

    def _drawn(self, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Points as densities."""
        positions = nn.utils.rnn.pad_sequence([p for p, _ in parts], batch_first=True)
        channel = nn.utils.rnn.pad_sequence([c for _, c in parts], batch_first=True, padding_value=-1)
        return gaussian_density(
            positions, channel, channels=self.channels, side=SIDE, spacing=SPACING, sigma=SIGMA
        )  # fmt: skip


def turns(count: int, draw: torch.Generator) -> Tensor:
    """Uniform on SO(3)."""
    quaternions = nn.functional.normalize(torch.randn(count, 4, generator=draw), dim=-1)
    return roma.unitquat_to_rotmat(quaternions)


def train(
    arm: str,
    domains: Domains,
    cached: Tensor,
    chosen: Tensor,
    epochs: int,
    seed: int,
    bend: tuple[float, float] | None = None,
) -> tuple[nn.Module, float]:
    """Train on some domains, bent or not; AdamW, warm-up, cosine. Returns the network and CPU seconds."""
    make, rate, decay = ARMS[arm]
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    network = make(**{**NETWORK, "channels_in": domains.channels}, generator=draw)
    optimiser = torch.optim.AdamW(rate_groups(network, rate), weight_decay=decay)
    weights = class_weights(domains.labels[chosen, 0])
    steps = epochs * (len(chosen) // BATCH)
    begin, step = time.process_time(), 0
    views = [] if arm == "steerable" else [cached, *(turned_fields(domains, draw) for _ in range(2))]
    network.train()
    for _ in range(epochs):
        order = chosen[torch.randperm(len(chosen), generator=draw)]
        for part in order[: len(order) // BATCH * BATCH].split(BATCH):
            share = min(1.0, (step + 1) / 30) * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for rates in optimiser.param_groups:
                rates["lr"] = rates["full"] * share
            if bend is not None:
                inputs = domains.bent(part, *bend, draw)
            else:
                inputs = cached[part] if arm == "steerable" else other_turns(views, part, draw)
            logits, labels = network(inputs), domains.labels[part]
            loss = nn.functional.cross_entropy(
                logits[:, :10], labels[:, 0], weights, ignore_index=-1, label_smoothing=0.05
            )
            if bool((labels[:, 1] >= 0).any()):
                loss = loss + nn.functional.cross_entropy(
                    logits[:, 10:], labels[:, 1], ignore_index=-1, label_smoothing=0.05
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    settle_norms(network, [cached[part] for part in chosen.split(64)])
    return network, time.process_time() - begin


def rate_groups(network: nn.Module, rate: float) -> list[dict[str, object]]:
    """Steerable weights are of order 1 and take the whole rate, all others a fifth; a plain network has one rate."""
    steerable = [m.weight for m in network.modules() if isinstance(m, SteerableConv3d)]
    known = {id(weight) for weight in steerable}
    rest = [p for p in network.parameters() if id(p) not in known]
    if not steerable:
        return [{"params": rest, "lr": rate, "full": rate}]
    return [{"params": steerable, "lr": rate, "full": rate}, {"params": rest, "lr": rate / 5, "full": rate / 5}]


def turned_fields(domains: Domains, draw: torch.Generator) -> Tensor:
    """All domains, each in its own random rotation."""
    every = torch.arange(len(domains.split)).split(64)
    return torch.cat([domains.fields(part, turns(len(part), draw)) for part in every])


def other_turns(views: list[Tensor], part: Tensor, draw: torch.Generator) -> Tensor:
    """Every domain in one of the views, turned by one of the 24 rotations of the cube."""
    group = cube_group()
    view = torch.randint(len(views), part.shape, generator=draw).tolist()
    turn = torch.randint(len(group), part.shape, generator=draw).tolist()
    fields = [views[v][index] for v, index in zip(view, part.tolist(), strict=True)]
    return torch.cat([rotate_field(f[None], f"{len(f)}x0", group[t]) for f, t in zip(fields, turn, strict=True)])


def class_weights(labels: Tensor) -> Tensor:
    """Inverse frequencies of the ten architectures, mean 1 over the members."""
    counts = torch.bincount(labels[labels >= 0], minlength=10).float()
    return counts.sum() / (10 * counts.clamp_min(1))


def logits_of(network: nn.Module, fields: Tensor) -> Tensor:
    """In evaluation mode, a few at a time."""
    with torch.no_grad():
        return torch.cat([network.eval()(part) for part in fields.split(32)])


def scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and balanced accuracy of both tasks."""
    result = {}
    for name, column, part in (("10arch", 0, slice(0, 10)), ("3class", 1, slice(10, 13))):
        member = labels[:, column] >= 0
        truth, guess = labels[member, column], logits[member, part].argmax(-1)
        result[name] = float((truth == guess).float().mean())
        result[f"{name}_balanced"] = float(
            torch.stack([(guess[truth == kind] == kind).float().mean() for kind in truth.unique()]).mean()
        )
    return result


def judge(network: nn.Module, domains: Domains, cached: Tensor, chosen: Tensor, views: int) -> dict[str, Tensor]:
    """Logits as the domains lie, and in random rotations."""
    draw = torch.Generator().manual_seed(99)
    turned = [logits_of(network, domains.fields(chosen, turns(len(chosen), draw))) for _ in range(views)]
    return {"still": logits_of(network, cached[chosen]), "turned": torch.stack(turned)}


def folds(args: argparse.Namespace) -> None:
    """Cross-validate one arm."""
    domains = Domains(labelled=not args.unlabelled)
    cached = torch.cat([domains.fields(part) for part in torch.arange(len(domains.split)).split(64)])
    name = args.name or f"cath_{args.arm}{'_unlabelled' if args.unlabelled else ''}{'_ten' if args.ten else ''}"
    count = len(domains.split)
    still, turned = torch.zeros(count, 13), torch.zeros(args.views, count, 13)
    rows: list[dict[str, object]] = []
    done = torch.zeros(count, dtype=torch.bool)
    kept = Path(args.keep) if args.keep else None
    if kept is not None and kept.exists():
        still, turned, done, rows = torch.load(kept, weights_only=True)
    per_fold = 1 if args.ten else 2
    for fold in args.folds or range(10 // per_fold):
        if any(row["fold"] == fold for row in rows):
            continue
        test = (domains.split // per_fold == fold).nonzero()[:, 0]
        chosen = (domains.split // per_fold != fold).nonzero()[:, 0]
        network, cpu = train(args.arm, domains, cached, chosen, args.epochs, args.seed + fold, args.bend)
        found = judge(network, domains, cached, test, args.views)
        still[test], turned[:, test], done[test] = found["still"], found["turned"], True
        rows.append(
            {
                "fold": fold, "test_splits": domains.split[test].unique().tolist(), "train": len(chosen),
                "train_cpu_s": round(cpu, 1),
                "as_they_lie": scores(found["still"], domains.labels[test]),
                "fitted": scores(logits_of(network, cached[chosen]), domains.labels[chosen]),
            }
        )  # fmt: skip
        print(time.strftime("%H:%M:%S"), rows[-1], flush=True)
        content = {
            "settings": {**settings(args.arm), "epochs": args.epochs, "seed": args.seed, "channels": domains.channels},
            "parameters": sum(p.numel() for p in network.parameters()),
            "pooled": {"as_they_lie": scores(still[done], domains.labels[done]), **rotated(turned, domains, done)},
            "folds": rows,
            "confusion_10arch": confusion(still[done, :10], domains.labels[done, 0]),
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1))
        if kept is not None:
            torch.save((still, turned, done, rows), kept)
    print({k: {n: round(v, 3) for n, v in s.items()} for k, s in content["pooled"].items()})


def rotated(turned: Tensor, domains: Domains, done: Tensor) -> dict[str, dict[str, float]]:
    """Mean over random rotations of the scores, and the scores of the mean of the logits over rotations."""
    each = [scores(view[done], domains.labels[done]) for view in turned]
    return {
        "random_rotation": {key: sum(row[key] for row in each) / len(each) for key in each[0]},
        "mean_over_rotations": scores(turned[:, done].mean(0), domains.labels[done]),
    }


def confusion(logits: Tensor, labels: Tensor) -> list[list[int]]:
    """Rows: truth; columns: answer."""
    member = labels >= 0
    pairs = labels[member] * 10 + logits[member].argmax(-1)
    return torch.bincount(pairs, minlength=100).reshape(10, 10).tolist()


def together(args: argparse.Namespace) -> None:
    """Mean of the probabilities of networks of several seeds, from the answers that ``--keep`` left."""
    domains = Domains()
    every = [torch.load(path, weights_only=True) for path in args.kept]
    done = torch.stack([kept[2] for kept in every]).all(0)
    still = torch.stack([log_probabilities(kept[0]) for kept in every]).exp().mean(0)
    turned = torch.stack([log_probabilities(kept[1]) for kept in every]).exp().mean(0)
    each = [{"as_they_lie": scores(kept[0][done], domains.labels[done]), **rotated(kept[1], domains, done)}
            for kept in every]  # fmt: skip
    content = {
        "networks": len(every), "domains": int(done.sum()), "each": each,
        "pooled": {"as_they_lie": scores(still[done], domains.labels[done]), **rotated(turned, domains, done)},
        "train_cpu_s": [round(sum(row["train_cpu_s"] for row in kept[3]) / len(kept[3]), 1) for kept in every],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{args.name}.json").write_text(json.dumps(content, indent=1))
    print({k: {n: round(v, 3) for n, v in s.items()} for k, s in content["pooled"].items()})


def log_probabilities(logits: Tensor) -> Tensor:
    """Of both heads."""
    return torch.cat([logits[..., :10].log_softmax(-1), logits[..., 10:].log_softmax(-1)], dim=-1)


def reductions(args: argparse.Namespace) -> None:
    """Published split (train 0 to 6, test 8 and 9), 1 in 1, 4, 16 of the training domains; other seeds stay."""
    domains = Domains()
    cached = torch.cat([domains.fields(part) for part in torch.arange(len(domains.split)).split(64)])
    test = (domains.split >= 8).nonzero()[:, 0]
    path = RESULTS / "cath_reductions.json"
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    rows = [row for row in before if row["seed"] not in args.seeds]
    for seed in args.seeds:
        for factor in args.factors:
            whole = (domains.split <= 6).nonzero()[:, 0]
            order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
            chosen = whole[order[: len(whole) // factor]]
            for arm in ARMS:
                network, cpu = train(arm, domains, cached, chosen, args.epochs * math.isqrt(factor), seed)
                found = scores(logits_of(network, cached[test]), domains.labels[test])
                rows.append({"arm": arm, "factor": factor, "seed": seed, "train_cpu_s": round(cpu, 1), **found})
                print(time.strftime("%H:%M:%S"), rows[-1], flush=True)
                content = {"settings": {**settings(arm), "epochs": args.epochs}, "runs": rows}
                path.write_text(json.dumps(content, indent=1))


def final(args: argparse.Namespace) -> None:
    """Train on all domains, for the model folder."""
    domains = Domains()
    cached = torch.cat([domains.fields(part) for part in torch.arange(len(domains.split)).split(64)])
    network, cpu = train("steerable", domains, cached, torch.arange(len(domains.split)), args.epochs, args.seed)
    fitted = scores(logits_of(network, cached), domains.labels)
    print("fitted", fitted, "cpu", cpu)
    torch.save({"state": network.state_dict(), "network": NETWORK, "epochs": args.epochs, "cpu": cpu}, args.out)


def settings(arm: str) -> dict[str, object]:
    """What is written beside every result."""
    return {
        "arm": arm, "network": NETWORK, "lr": ARMS[arm][1], "weight_decay": ARMS[arm][2], "batch": BATCH, "side": SIDE,
        "spacing": SPACING, "sigma": SIGMA, "threads": 1,
    }  # fmt: skip


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("folds")
    sub.add_argument("--arm", choices=list(ARMS), default="steerable")
    sub.add_argument("--folds", type=int, nargs="+", default=[], help="all, if left out")
    sub.add_argument("--ten", action="store_true", help="ten folds of one split each, not five of two")
    sub.add_argument("--views", type=int, default=2)
    sub.add_argument("--keep", default="", help="file of the answers so far: a second call goes on from there")
    sub.add_argument("--unlabelled", action="store_true", help="one channel of C-alpha atoms, as published")
    sub.add_argument("--name", default="")
    sub.add_argument("--bend", type=float, nargs=2, help="shear and displacement in Å in training, for example 0.08 1")
    sub = verbs.add_parser("together")
    sub.add_argument("kept", nargs="+", help="files of --keep")
    sub.add_argument("--name", default="cath_together")
    sub = verbs.add_parser("reductions")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    sub.add_argument("--factors", type=int, nargs="+", default=[16, 4, 1])
    sub = verbs.add_parser("final")
    sub.add_argument("--out", required=True)
    for sub in verbs.choices.values():
        sub.add_argument("--epochs", type=int, default=EPOCHS)
        sub.add_argument("--seed", type=int, default=0)
        sub.add_argument("--shells", type=int, default=0, help="means over shells about the centre, not one over all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    NETWORK["shells"] = args.shells
    {"folds": folds, "together": together, "reductions": reductions, "final": final}[args.verb](args)


if __name__ == "__main__":
    main()
