"""Everyday images in the form of the published table: all networks, several seeds, upright and turned.

    python experiments/images/table2.py run --data ../shared/data/images --set cifar --per-class 40 --epochs 6
    python experiments/images/table2.py run --data ../shared/data/images --set cifar --per-class 200 --epochs 10
    python experiments/images/table2.py run --data ../shared/data/images --set galaxies --epochs 12
    python experiments/images/table2.py report

Every (set, pictures per class, network, seed) that is done is one file in experiments/images/results; a run goes on
where it was left. The pictures are lossy copies (CIFAR) and textbook examples (galaxies): compare methods with each
other, not with the literature.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from equivox.formats.pictures import read_picture
from equivox.tasks.images.config import DataConfig, image_preset
from equivox.tasks.images.evaluate import EvaluateConfig, evaluate_images
from equivox.tasks.images.train import TrainRun, train_images

RESULTS = Path(__file__).parent / "results"
NETWORKS = {
    "cifar": ("linear_cifar33", "conv_cifar33", "conv_cifar33_free", "resnet_cifar33", "so2_cifar33", "so3_cifar33",
              "ball_cifar33_5k"),
    "galaxies": ("linear_gz2_45", "conv_gz2_45", "conv_gz2_45_free", "resnet_gz2_45", "so2_gz2_45", "so3_gz2_45",
                 "ball_gz2_45_4k"),
}  # fmt: skip
GALAXY_CLASSES = ("smooth", "features or disk", "star or artifact")


def cifar_subset(data: Path, out: Path, per_class: int) -> Path:
    """So many training pictures of each class (the first of a fixed shuffle), all test pictures."""
    path = out / "cifar.npz"
    with np.load(data / "cifar10_jpeg_subset.npz") as archive:
        content, offsets = archive["jpeg"].tobytes(), archive["offsets"]
        label, is_test, names = archive["label"], archive["is_test"], archive["class_names"]
    draw = np.random.default_rng(0)
    kept = [np.flatnonzero(is_test)]
    for number in range(10):
        members = np.flatnonzero((label == number) & ~is_test)
        kept.append(draw.permutation(members)[:per_class] if per_class else members)
    chosen = np.sort(np.concatenate(kept))
    pictures = [
        read_picture(content[offsets[i] : offsets[i + 1]], name=str(i)).permute(1, 2, 0).numpy() for i in chosen
    ]
    np.savez(
        path, x=np.stack(pictures), label=label[chosen].astype(np.int64), is_test=is_test[chosen], class_names=names
    )
    return path


def galaxies(data: Path, out: Path, per_class: int) -> Path:
    """The labelled pictures, their central 45 pixels."""
    path = out / "galaxies.npz"
    with np.load(data / "galaxy_zoo_examples_64.npz") as archive:
        label, is_test, pixels = archive["shape_class"], archive["is_test"], archive["x"]
    known = label >= 0
    np.savez(
        path, x=pixels[known][:, 9:54, 9:54], label=label[known].astype(np.int64), is_test=is_test[known],
        class_names=np.array(GALAXY_CLASSES),
    )  # fmt: skip
    return path


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make = {"cifar": cifar_subset, "galaxies": galaxies}[arguments.set]
        path = make(arguments.data, Path(folder), arguments.per_class)
        for seed in arguments.seeds:
            for name in arguments.networks or NETWORKS[arguments.set]:
                target = RESULTS / f"table2-{arguments.set}-{arguments.per_class or 'all'}-{name}-{seed}.json"
                if target.exists() and not arguments.again:
                    continue
                target.write_text(json.dumps(one(arguments, path, Path(folder), name, seed), indent=1) + "\n")


def one(arguments: argparse.Namespace, path: Path, folder: Path, name: str, seed: int) -> dict[str, object]:
    """Train and measure one network from one seed."""
    settings = image_preset(name).with_values(
        epochs=arguments.epochs, batch_size=arguments.batch_size, patience=arguments.patience
    )
    start = time.process_time()
    data = DataConfig(data=str(path))
    out = folder / f"{name}-{seed}"
    trained = train_images(data, settings, TrainRun(out=out, seed=seed, device="cpu"))
    spent = time.process_time() - start
    config = EvaluateConfig(model=str(out / "model"), data=data, turned=arguments.turned)
    found = evaluate_images(config, device="cpu")
    assert found.turned is not None
    print(f"{arguments.set} {name} seed {seed}: {found.cross_entropy:.3f} {found.accuracy:.3f}", flush=True)
    return {
        "set": arguments.set, "network": name, "seed": seed, "parameters": trained.parameters,
        "pictures": {**trained.counts, "test": len(found.ids)}, "epochs": trained.fitted.epochs,
        "best_epoch": trained.fitted.best_epoch, "batch_size": arguments.batch_size, "cpu_s": round(spent, 1),
        "cross_entropy": found.cross_entropy, "accuracy": found.accuracy,
        "balanced_accuracy": found.balanced_accuracy, "majority": found.majority,
        "turned": found.turned.as_dict(),
    }  # fmt: skip


def report(arguments: argparse.Namespace) -> None:
    """The table in Markdown, mean ± standard deviation over seeds."""
    rows = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("table2-*.json"))]
    for name, count in sorted({(row["set"], row["pictures"]["training"]) for row in rows}):
        networks = NETWORKS[name]
        own = [row for row in rows if (row["set"], row["pictures"]["training"]) == (name, count)]
        counts = own[0]["pictures"]
        print(f"\n{name}: {counts['training']} / {counts['validation']} / {counts['test']} pictures\n")
        print("| network | parameters | seeds | cross-entropy | accuracy | balanced | quarter turns, mirrors | "
              "angles between | CPU s |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|---|")
        for network in networks:
            mine = [row for row in own if row["network"] == network]
            if not mine:
                continue
            sets = [{part["name"]: part for part in row["turned"]["sets"]} for row in mine]
            cells = [
                spread([row["cross_entropy"] for row in mine]), spread([row["accuracy"] for row in mine]),
                spread([row["balanced_accuracy"] for row in mine]),
                spread([part["turns and mirrors of the square"]["accuracy"] for part in sets]),
                spread([part["angles between"]["accuracy"] for part in sets]),
                f"{statistics.mean(row['cpu_s'] for row in mine):.0f}",
            ]  # fmt: skip
            print(f"| {network} | {mine[0]['parameters']:,} | {len(mine)} | " + " | ".join(cells) + " |")


def spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--set", choices=sorted(NETWORKS), required=True)
    running.add_argument("--networks", nargs="*")
    running.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    running.add_argument("--per-class", type=int, default=0, help="training pictures of each class; 0: all")
    running.add_argument("--epochs", type=int, default=200)
    running.add_argument("--patience", type=int, default=5)
    running.add_argument("--batch-size", type=int, default=32)
    running.add_argument("--turned", type=int, default=300)
    running.add_argument("--again", action="store_true")
    running.set_defaults(work=run)
    commands.add_parser("report").set_defaults(work=report)
    arguments = parser.parse_args()
    arguments.work(arguments)


if __name__ == "__main__":
    main()
