"""Orientations as in the published Table 3, in the size of a CPU: one training, tested on uniform and preferred views.

10,000 fixed pictures of 33 px at 3 Å without noise or transfer, centred; the last step's weights; 1,000 test pictures
of each distribution. Methods: ``mixture`` (ours: 24 poses refined on 4,608), ``hard`` (the paper's loss on the true
one of 24 cells, body-frame offset, no second look), ``unimodal`` (one pose from the features of all 24), ``so2`` (a
mixture over nine in-plane turns of one network, whose offsets reach every pose), ``conv2d`` (a plain network),
``template`` (best normalised correlation with clean templates on a grid; nothing is learned), ``oracle`` (knows the
truth, but may only name the middle of the preferred views, turned in the plane or mirrored: the least error of who has
seen no other view), ``seen`` (names the one of those whose clean picture correlates best: matching without learning).

    python experiments/orient/table3.py mixture --train uniform --epochs 3
    python experiments/orient/table3.py mixture --train uniform --epochs 6 --snr 0.1 --defocus-angstrom 8000 25000
    python experiments/orient/table3.py mixture --train histogram --epochs 3

With ``--snr`` (variance of signal to noise over the picture) training and test have that noise; with a range of
underfocus the transfer of a microscope too, its phases flipped. ``--fresh`` draws poses, transfer and noise anew for
every epoch, as ``equivox orient train`` does from a model; the test stays. ``histogram`` are the views measured in
another experiment (``poses/view_histogram_12x24.npz``).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import nearest_rotation, rotation_about
from equivox.geometry.so3_grids import rotation_grid
from equivox.metrics.orientation import constant_guess_rad, orientation_angles, reliability, summarise_angles
from equivox.nets.orientation_search import search_poses
from equivox.run.seeds import generator_for, seed_for
from equivox.tasks.orient.config import OrientTraining, PictureConfig, SimulationConfig
from equivox.tasks.orient.particle import load_particle
from equivox.tasks.orient.samples import SimulatedPictures, preferred_pose
from equivox.tasks.orient.train_course import OrientCourse

OBJECTS = {
    "11as-A": ("11as.pdb.gz", "A", "C1", 3.0),
    "1igy": ("1igy.pdb.gz", "", "C1", 5.5),
    "11as": ("11as.pdb.gz", "", "C2", 3.3),
    "3wip": ("3wip.pdb.gz", "", "C5", 3.6),
    "1oel": ("1oel.pdb.gz", "", "C7", 5.2),
}
"""File, chains, symmetry, pixel size [Å] so that the particle fits into 33 px."""
METHODS = ("mixture", "hard", "unimodal", "so2", "conv2d", "template", "oracle", "seen")
RESULTS = Path(__file__).parent / "results"


class PlainRegressor(nn.Module):
    """A plain convolutional network that gives one rotation: nine numbers, then the nearest rotation."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 24, 48, 96)
        layers: list[nn.Module] = []
        for before, after, size, stride in zip(widths, widths[1:], (9, 5, 5), (2, 1, 1), strict=False):
            layers += [nn.Conv2d(before, after, size, stride=stride), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(widths[-1] * 25, 1024), nn.ReLU(), nn.Linear(1024, 9)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return nearest_rotation(self.layers(pictures).unflatten(-1, (3, 3)) + 0.1 * torch.eye(3))


@dataclass(frozen=True)
class Scene:
    """What is seen, and how well."""

    name: str
    data: Path
    snr: float | None = None
    defocus_angstrom: tuple[float, float] | None = None

    @property
    def transfer(self) -> str:
        """What is done about the microscope."""
        return "none" if self.defocus_angstrom is None else "flip"

    def histogram(self) -> np.ndarray:
        """Measured views: cos(tilt) by rot."""
        with np.load(self.data / "poses" / "view_histogram_12x24.npz") as archive:
            found: np.ndarray = archive["counts"].astype(np.float64)
        return found


Pictures = Callable[[int], dict[str, Tensor]]
"""The training pictures of an epoch."""


def pictures_of(
    scene: Scene, views: str, seed: int, *, train: int, test: int, fresh: bool = False
) -> tuple[Pictures, dict[str, Tensor]]:
    """Of training and test."""
    file, chains, symmetry, pixel = OBJECTS[scene.name]
    particle = load_particle(scene.data / "structures" / file, chains=chains).points
    picture = PictureConfig(side=33, pixel_size_angstrom=pixel, transfer=scene.transfer, symmetry=symmetry)
    noise = None if scene.snr is None else (scene.snr, scene.snr)
    simulation = SimulationConfig(
        particles=train, fixed=not fresh, validation=test, views=views, snr=noise,
        defocus_angstrom=scene.defocus_angstrom,
    )  # fmt: skip
    histogram = scene.histogram() if views == "histogram" else None
    training, testing = (
        SimulatedPictures(particle, picture, simulation, seed=seed, training=part, histogram=histogram)
        for part in (True, False)
    )
    once = None if fresh else stacked(training, 0)
    return (lambda epoch: stacked(training, epoch) if once is None else once), stacked(testing, 0)


def stacked(samples: SimulatedPictures, epoch: int) -> dict[str, Tensor]:
    """All pictures of an epoch and their poses."""
    rows = [samples.sample(epoch, index) for index in range(len(samples))]
    return {key: torch.stack([row[key] for row in rows]) for key in ("picture", "rotation")}


def recipe(method: str, scene: Scene, epochs: int, batch: int) -> OrientTraining:
    _, _, symmetry, pixel = OBJECTS[scene.name]
    values = {"symmetry": symmetry, "pixel_size_angstrom": pixel, "transfer": scene.transfer, "epochs": epochs}
    if method == "hard":
        values |= {"loss": "hard", "fine": False, "turn_grid": False}
    if method == "unimodal":
        values |= {"head": "unimodal", "fine": False, "turn_grid": False}
    if method == "so2":
        values |= {"coarse_grid": "C9", "offset": "procrustes", "fine": False, "turn_grid": False}
    return OrientTraining().with_values(**values, batch_size=batch)


def train(
    method: str, scene: Scene, pictures: Pictures, *, seed: int, count: int, epochs: int, batch: int
) -> nn.Module | OrientCourse:
    settings = recipe(method, scene, epochs, batch)
    if method == "conv2d":
        torch.manual_seed(seed_for(seed, "weights"))
        network: nn.Module = PlainRegressor()
        course = None
    else:
        course = OrientCourse(settings, seed=seed)
        network = course.network
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    group = point_group(settings.picture.symmetry).float()
    steps = epochs * (count // batch)
    step = 0
    for epoch in range(epochs):
        data = pictures(epoch)
        order = torch.randperm(count, generator=generator_for(seed, "order", epoch))
        if course is not None:
            course.start_epoch(epoch, optimizer)
        total = 0.0
        for chosen in order[: count // batch * batch].split(batch):
            for entry in optimizer.param_groups:  # along a cosine, after a short rise
                rise = min(1.0, (step + 1) / 50)
                entry["lr"] = settings.lr * rise * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))
            part = {key: tensor[chosen] for key, tensor in data.items()}
            if course is not None:
                loss = course.training_values(part)["loss"].mean()
            else:
                trace = torch.einsum("bij,bgij->bg", network(part["picture"]), part["rotation"][:, None] @ group)
                loss = (3.0 - trace.amax(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
            step += 1
        print(
            f"{method} {scene.name} seed {seed} epoch {epoch + 1}/{epochs} loss {total / (count // batch):.3f}",
            flush=True,
        )
    network.eval()
    return network if course is None else course


@torch.no_grad()
def answers(
    model: nn.Module | OrientCourse, pictures: Tensor, group: Tensor | None, loss: str
) -> tuple[Tensor, Tensor]:
    """Best pose and its confidence (0 where the method has none)."""
    poses, told = [], []
    for part in pictures.split(100):
        if isinstance(model, PlainRegressor):
            poses.append(model(part))
            told.append(torch.zeros(len(part)))
        elif loss == "hard":
            found = model.orientation.look_coarse(part)
            poses.append(found.rotations[torch.arange(len(part)), found.logits.argmax(1)])
            told.append(torch.softmax(found.logits, 1).amax(1))
        else:
            best = search_poses(model.orientation, part, group=group)
            poses.append(best.rotations[:, 0])
            told.append(best.confidence[:, 0])
    return torch.cat(poses), torch.cat(told)


def match_templates(scene: Scene, test: dict, matrices: Tensor) -> Tensor:
    """The pose of the best template by normalised correlation, of templates in these poses."""
    from equivox.simulate.point_particle import project_points
    from equivox.tasks.orient.picture import standardise

    file, chains, _, pixel = OBJECTS[scene.name]
    particle = load_particle(scene.data / "structures" / file, chains=chains).points
    best, place = torch.full((len(test["picture"]),), -2.0), torch.zeros(len(test["picture"]), dtype=torch.long)
    for start in range(0, len(matrices), 512):
        part = matrices[start : start + 512]
        pictures = standardise(project_points(particle, part, side=33, pixel_size_angstrom=pixel)).flatten(1)
        score, index = (test["picture"].flatten(1) @ pictures.mT / pictures.shape[1]).max(1)
        place = torch.where(score > best, index + start, place)
        best = torch.maximum(score, best)
    return matrices[place].float()


def seen_poses(seed: int) -> Tensor:
    """The preferred pose and its mirror image by every half degree in the plane."""
    turns = [rotation_about("z", float(angle)) for angle in torch.arange(720) / 2]
    seen = torch.stack([turn @ rotation_about("x", flip) for flip in (0.0, 180.0) for turn in turns])
    return seen @ preferred_pose(seed)


def nearest_seen(seed: int, truth: Tensor) -> Tensor:
    """Of those poses the nearest to the truth."""
    poses = seen_poses(seed).float()
    return poses[torch.einsum("bij,pij->bp", truth, poses).argmax(1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--train", choices=("uniform", "preferred", "histogram"), default="uniform")
    parser.add_argument("--object", choices=sorted(OBJECTS), default="11as-A")
    parser.add_argument("--grid", default="healpix-4", help="of the templates")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--snr", type=float, help="variance of signal to noise over the picture; without: no noise")
    parser.add_argument("--defocus-angstrom", type=float, nargs=2, help="range of underfocus; without: no transfer")
    parser.add_argument("--fresh", action="store_true", help="other training pictures in every epoch")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cryoem"))
    parser.add_argument("--tag", default="", help="ends the name of the results' file, for another recipe")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    symmetry = OBJECTS[given.object][2]
    whole = point_group(symmetry).float()
    group = None if len(whole) == 1 else whole
    learned = given.method not in ("template", "oracle", "seen")
    count = given.pictures if learned else 1
    defocus = None if given.defocus_angstrom is None else tuple(given.defocus_angstrom)
    scene = Scene(given.object, given.data, given.snr, defocus)
    data, own_test = pictures_of(scene, given.train, given.seed, train=count, test=given.tests, fresh=given.fresh)
    tests = {given.train: own_test}
    if given.train != "uniform":
        tests["uniform"] = pictures_of(scene, "uniform", given.seed, train=1, test=given.tests)[1]
    model = None
    if learned:
        model = train(given.method, scene, data, seed=given.seed, count=count, epochs=given.epochs, batch=given.batch)
    parameters = 0
    if model is not None:
        network = model.network if isinstance(model, OrientCourse) else model
        parameters = sum(parameter.numel() for parameter in network.parameters())
    trained_s = time.process_time() - start
    rows = {}
    for views, test in tests.items():
        if given.method == "oracle":
            poses, told = nearest_seen(given.seed, test["rotation"]), torch.zeros(given.tests)
        elif model is None:
            matrices = seen_poses(given.seed) if given.method == "seen" else rotation_grid(given.grid).matrices
            poses, told = match_templates(scene, test, matrices), torch.zeros(given.tests)
        else:
            poses, told = answers(model, test["picture"], group, given.method)
        angles = orientation_angles(test["rotation"], poses, group=group)
        rows[views] = summarise_angles(angles).as_dict()
        if group is not None:
            rows[views]["mean_without_symmetry_rad"] = float(orientation_angles(test["rotation"], poses).mean())
        if given.method == "mixture":
            rows[views]["reliability"] = reliability(told, torch.rad2deg(angles) <= 10.0).as_dict()
    document = {
        "method": given.method, "object": given.object, "symmetry": symmetry, "train": given.train, "seed": given.seed,
        "snr": given.snr, "defocus_angstrom": given.defocus_angstrom, "tag": given.tag,
        "fresh": given.fresh, "epochs": given.epochs if learned else 0, "pictures": given.pictures if learned else 0,
        "tests": given.tests,
        "grid": given.grid if not learned else "O", "parameters": parameters, "errors": rows,
        "constant_guess_preferred_rad": constant_guess_rad(0.1), "cpu_s_training": round(trained_s, 1),
        "cpu_s": round(time.process_time() - start, 1), "threads": 1, "torch": torch.__version__,
    }  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    mark = given.grid if given.method == "template" else given.method
    seen = ("" if given.snr is None else f"_snr{given.snr:g}") + ("" if defocus is None else "_transfer")
    seen += "_fresh" if given.fresh else ""
    seen += f"_{given.tag}" if given.tag else ""
    path = given.out / f"{given.object}_{given.train}_{mark}{seen}_seed{given.seed}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    for views, row in rows.items():
        print(
            f"{views}: mean {row['mean_rad']:.4f} median {row['median_rad']:.4f} rad, {row['near']:.1%} within 10 deg"
        )
    print(path)


if __name__ == "__main__":
    main()
