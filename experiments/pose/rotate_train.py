"""Train and judge the head-rotation network: ``pretrain`` on simulated heads, ``finetune`` per fold, ``evaluate``.

    python experiments/pose/rotate_train.py pretrain --out W/pretrain --steps 2400 --seed 1
    python experiments/pose/rotate_train.py finetune --start W/pretrain/last.pt --out W/fold0 --fold 0
    python experiments/pose/rotate_train.py finetune --start W/pretrain/last.pt --out W/final --fold -1
    python experiments/pose/rotate_train.py evaluate --weights W/pretrain/last.pt --name zero_shot
    python experiments/pose/rotate_train.py evaluate --weights 'W/fold{fold}/last.pt' --name finetuned

Every run writes settings, seed, CPU seconds and results as JSON. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rotate_data import Augmentation, Stack, finished, load_stacks, real_batch, simulated_batch
from torch import Tensor, nn

from equivox.geometry.rotations import geodesic_angle
from equivox.nets.head_pose import HeadPoseNet
from equivox.nets.readout import read_out
from equivox.tasks.pose.anatomy import load_head_anatomy
from equivox.tasks.pose.rotate import CropConfig, find_rotation, head_cube

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "fetal"
RESULTS = Path(__file__).parent / "results"
NETWORK = {"channels_in": 2, "side": 32, "widths": (0.5, 1.0, 1.0), "depths": (1, 1, 2)}


def axes_loss(nine: Tensor, rotation: Tensor) -> Tensor:
    """1 - cosine per axis; the left-right axis counts up to sign (it is a pseudovector)."""
    axes = torch.nn.functional.normalize(nine.unflatten(-1, (3, 3)), dim=-1, eps=1e-6)
    cosine = torch.einsum("nac,nca->na", axes, rotation)
    return (1 - cosine[:, 0].abs()) + (1 - cosine[:, 1]) + (1 - cosine[:, 2])


def judged_by_axes(network: nn.Module, inputs: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and the nine numbers of a network that answers with three axes."""
    nine = network(inputs)
    return axes_loss(nine, rotation).mean(), nine


class Renders:
    """Simulated crops, each used about twice: half of a batch is new, half drawn from the last 128 (rendering is dear).

    The intensity augmentation is drawn afresh each time.
    """

    def __init__(self, make: Callable[[int], tuple[Tensor, Tensor, Tensor]]) -> None:
        self.make, self.kept = make, None

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Image, validity, rotation of ``count`` crops."""
        if self.kept is None:
            self.kept = self.make(count)
            return self.kept
        new = self.make(max(count // 2, 1))
        rest = count - len(new[0])
        pick = torch.randperm(len(self.kept[0]), generator=generator)[:rest]
        old = tuple(part[pick] for part in self.kept)
        self.kept = tuple(torch.cat([part, fresh])[-128:] for part, fresh in zip(self.kept, new, strict=True))
        return tuple(torch.cat([fresh, part]) for fresh, part in zip(new, old, strict=True))


def train(
    args: argparse.Namespace,
    network: nn.Module,
    stacks: list[Stack],
    simulated: int,
    batch: int,
    *,
    judged: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]] = judged_by_axes,
    augmentation: Augmentation = Augmentation(),  # noqa: B008 (frozen)
) -> None:
    """Run the schedule: warm-up, cosine to 1 %; log, checkpoint and (zero-shot only) evaluate as it goes."""
    config = CropConfig()
    anatomy = load_head_anatomy(DATA / "templates")
    generator = torch.Generator().manual_seed(args.seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=1e-3)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {**vars(args), "crop": asdict(config), "augmentation": asdict(augmentation)}
    if isinstance(network, HeadPoseNet):
        settings["network"] = {**NETWORK, "kernels": getattr(args, "kernels", "shells")}
    log: list[dict[str, float]] = []
    begin, recent = time.process_time(), []
    renders = Renders(lambda count: simulated_batch(anatomy, count, config, generator, pitch_sd_deg=args.pitch_sd))
    for step in range(args.steps):
        rate = min(1.0, (step + 1) / 15) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        optimiser.param_groups[0]["lr"] = args.lr * rate
        parts = []
        if simulated:
            parts.append(renders.draw(simulated, generator))
        if batch - simulated:
            parts.append(real_batch(stacks, batch - simulated, config, augmentation, generator))
        image, valid, rotation = (torch.cat(part) for part in zip(*parts, strict=True))
        inputs = finished(image, valid, config, augmentation, generator)
        loss, nine = judged(network, inputs, rotation)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        angle = torch.rad2deg(geodesic_angle(read_out(nine.detach()).rotation, rotation))
        recent.append((float(loss.detach()), angle))
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            angles = torch.cat([a for _, a in recent])
            entry = {
                "step": step + 1, "loss": sum(v for v, _ in recent) / len(recent), "median_deg": float(angles.median()),
                "flips": float((angles > 90).float().mean()), "cpu_s": time.process_time() - begin,
            }  # fmt: skip
            log.append({k: round(v, 4) for k, v in entry.items()})
            print(time.strftime("%H:%M:%S"), log[-1], flush=True)
            recent = []
            torch.save({"state": network.state_dict(), "settings": settings, "log": log}, out / "last.pt")
        if step + 1 == args.stop:
            break
    if args.log:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{args.log}.json").write_text(json.dumps({"settings": settings, "log": log}, indent=1))


def load_network(path: str) -> HeadPoseNet:
    """Network with the weights of a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    network = HeadPoseNet(**checkpoint["settings"]["network"])
    network.load_state_dict(checkpoint["state"])
    return network.eval()


def judge(
    networks: list[HeadPoseNet],
    stack: Stack,
    *,
    views: int,
    center: Tensor | None = None,
    volume_ml: float | None = None,
) -> dict[str, object]:
    """Error of one stack with the oracle crop (no volume given), or with a found centre and volume."""
    base = {"id": stack.id, "fetus": stack.fetus, "fold": stack.fold, "primary": stack.primary}
    if volume_ml is not None and center is None:
        nothing = [[math.nan] * 3] * 3
        return {**base, "error_deg": math.nan, "spread_deg": 180.0, "singular_values": (0.0,) * 3, "rotation": nothing}
    cube, valid = (stack.cube, stack.valid) if center is None else head_cube(stack.volume, center)
    answer = find_rotation(networks, cube, valid, volume_ml or stack.volume_ml, CropConfig(), views=views)
    truth = stack.rotation.double()
    error = math.degrees(float(geodesic_angle(answer.rotation, truth)))
    return {
        **base, "error_deg": error, "spread_deg": answer.spread_deg, "singular_values": answer.singular_values,
        "rotation": answer.rotation.tolist(),
    }  # fmt: skip


def summary(rows: list[dict[str, object]]) -> dict[str, float]:
    """Stack-level numbers of the primary stacks, and the mean over fetuses."""
    primary = [r for r in rows if r["primary"]]
    errors = torch.tensor([float(r["error_deg"]) for r in primary])
    fetuses = sorted({r["fetus"] for r in primary})
    means = torch.tensor(
        [torch.tensor([float(r["error_deg"]) for r in primary if r["fetus"] == f]).nanmean() for f in fetuses]
    )
    every = torch.tensor([float(r["error_deg"]) for r in rows])
    return {
        "stacks": len(primary), "median": float(errors.nanquantile(0.5)), "mean": float(errors.nanmean()),
        "below_10": float((errors < 10).float().mean()), "below_20": float((errors < 20).float().mean()),
        "below_30": float((errors < 30).float().mean()), "flips": float((errors > 90).float().mean()),
        "fetus_mean": float(means.nanmean()), "all_median": float(every.nanquantile(0.5)),
        "all_below_30": float((every < 30).float().mean()), "all_flips": float((every > 90).float().mean()),
    }  # fmt: skip


def read_located(path: Path) -> dict[str, tuple[Tensor | None, float]]:
    """Found centre (None: nothing found) and mask volume per stack, from ``locate_evaluate.py``'s results."""
    return {
        row["id"]: (
            None if row["center_mm"] is None else torch.tensor(row["center_mm"], dtype=torch.float64),
            row["mask_volume_ml"] or 290.0,
        )
        for row in json.loads(path.read_text())["stacks"]
    }


def volume_correction(
    stacks: list[Stack], located: dict[str, tuple[Tensor | None, float]], *, held_out: int | None = None
) -> float:
    """Median ratio of reference to found brain volume over the graded stacks outside one fold, found within 20 mm."""
    ratios = []
    for stack in stacks:
        center, found_ml = located.get(stack.id, (None, 0.0))
        if center is None or stack.fold == held_out or stack.row["mask_grade"] == "C":
            continue
        if float((center - stack.center_mm).norm()) < 20:
            ratios.append(stack.volume_ml / found_ml)
    return float(torch.tensor(ratios).median())


def evaluate(args: argparse.Namespace) -> None:
    """Judge every stack with the network of its fold (``{fold}`` in the path) or with one network (zero-shot)."""
    stacks = load_stacks(DATA / "epi")
    located = read_located(Path(args.located)) if args.located else None
    networks: dict[str, HeadPoseNet] = {}
    rows = []
    if located is not None and (missing := [s.id for s in stacks if s.id not in located]):
        print("not located, left out:", missing)
        stacks = [s for s in stacks if s.id in located]
    for stack in stacks:
        paths = [w.format(fold=stack.fold) for w in args.weights]
        for path in paths:
            networks.setdefault(path, load_network(path))
        if located is None:
            row = judge([networks[p] for p in paths], stack, views=args.views)
        else:
            center, volume_ml = located[stack.id]
            volume_ml *= volume_correction(stacks, located, held_out=stack.fold)
            row = judge([networks[p] for p in paths], stack, views=args.views, center=center, volume_ml=volume_ml)
        rows.append(row)
        print(
            f"{row['id']:14} fold {row['fold']} error {row['error_deg']:6.1f} spread {row['spread_deg']:5.1f} "
            f"s3 {row['singular_values'][2]:.2f} {'' if row['primary'] else '(secondary)'}",
            flush=True,
        )
    found = summary(rows)
    print({k: round(v, 3) for k, v in found.items()})
    if args.name:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"rotate_{args.name}.json").write_text(
            json.dumps({"settings": vars(args), "summary": found, "stacks": rows}, indent=1)
        )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, steps, lr in (("pretrain", 2200, 1.5e-2), ("finetune", 110, 6e-3)):
        sub = verbs.add_parser(verb)
        sub.add_argument("--out", required=True)
        sub.add_argument("--steps", type=int, default=steps)
        sub.add_argument("--stop", type=int, default=0, help="end after this many steps of the schedule")
        sub.add_argument("--pitch-sd", type=float, default=3.0, help="play between template and landmarks, degrees")
        sub.add_argument("--lr", type=float, default=lr)
        sub.add_argument("--seed", type=int, default=1)
        sub.add_argument("--batch", type=int, default=8)
        sub.add_argument("--log", default="")
        sub.add_argument("--kernels", choices=["shells", "matched"], default="shells")
        sub.add_argument("--start", default="")
        sub.add_argument("--fold", type=int, default=-1, help="held out; -1 trains on all stacks")
        sub.add_argument("--simulated", type=float, default=1.0 if verb == "pretrain" else 0.5)
    sub = verbs.add_parser("evaluate")
    sub.add_argument("--weights", nargs="+", required=True)
    sub.add_argument("--name", default="")
    sub.add_argument("--views", type=int, default=12)
    sub.add_argument("--located", default="", help="results of locate_evaluate.py instead of the oracle's crop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.verb == "evaluate":
        evaluate(args)
        return
    generator = torch.Generator().manual_seed(args.seed + 1000)
    network = (
        load_network(args.start).train()
        if args.start
        else HeadPoseNet(**NETWORK, kernels=args.kernels, generator=generator)
    )
    simulated = round(args.simulated * args.batch)
    stacks = (
        [] if simulated == args.batch else [s for s in load_stacks(DATA / "epi") if s.primary and s.fold != args.fold]
    )
    train(args, network, stacks, simulated, args.batch)


if __name__ == "__main__":
    main()
