"""Make head templates (mean local contrast of posed heads) and judge the whole pipeline with them, held out by fold.

    python experiments/pose/template.py make --out W                      # template_{-1,0,...,4}.safetensors
    python experiments/pose/template.py make --out W --simulated 80       # template_simulated.safetensors
    python experiments/pose/template.py make --out W --stacks 40 --case "no motion"
    python experiments/pose/template.py evaluate --name template_pipeline --template 'W/template_{fold}.safetensors'
    python experiments/pose/template.py evaluate --name template_oracle --oracle --template ...
    python experiments/pose/template.py evaluate --name template_simulated --oracle --unaided \\
        --template W/template_simulated.safetensors
    python experiments/pose/template.py fetuses --counts 1 4 99 --seeds 0 1 2
    python experiments/pose/template.py report template_pipeline template_oracle template_simulated

``evaluate`` runs :class:`HeadEstimator` with the finder, rotation network and template of the fold that saw no stack of
the fetus. ``--oracle`` gives it the brain mark and the reference volume instead of what the finder found; ``--unaided``
leaves the rotation network's guess out. ``fetuses`` makes templates of so many training fetuses (drawn by seed, every
fold held out in turn). One thread; about 3 CPU seconds a stack.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy
import torch
from locate_evaluate import load_network as load_finder
from rotate_data import Stack, load_stacks
from rotate_train import DATA, RESULTS, load_network, summary
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "simulation"))
from ablations import CASES

from equivox.formats.fetal_templates import read_templates
from equivox.geometry.rotations import geodesic_angle
from equivox.geometry.space import Volume
from equivox.nets.head_template import HeadTemplate
from equivox.run.seeds import seed_for
from equivox.simulate.config import HeadSimulation
from equivox.simulate.head import simulate_heads
from equivox.simulate.stack import simulate_stacks
from equivox.simulate.templates import prepare_templates
from equivox.tasks.pose.anatomy import load_head_anatomy
from equivox.tasks.pose.estimator import HeadEstimator, HeadSettings
from equivox.tasks.pose.register import RegisterConfig, register_head
from equivox.tasks.pose.rotate import find_rotation, head_cube
from equivox.tasks.pose.template import make_template, posed_brain

VOLUME_CORRECTION = 0.9149
"""As in the shipped model (a median over all graded stacks; 0.91, once 1.11, when one fold is left out)."""


def of_stacks(stacks: list[Stack]) -> HeadTemplate:
    """Template of real stacks; every fetus counts once."""
    return make_template(
        [(s.cube, s.valid) for s in stacks], torch.stack([s.rotation for s in stacks]),
        [s.volume_ml for s in stacks], [s.fetus for s in stacks],
        brains=[None if s.row["mask_grade"] == "C" else (s.distance < 0).float() for s in stacks],
    )  # fmt: skip


def of_simulation(count: int, seed: int) -> HeadTemplate:
    """Template of simulated heads of the reference size: no real stack."""
    anatomy, draw = load_head_anatomy(DATA / "templates"), torch.Generator().manual_seed(seed)
    settings = HeadSimulation(
        brain_volume_ml=(290.0, 290.0), crop_scale_log_sd=0.0, center_jitter_mm=0.0, pitch_sd_deg=0.0
    )
    cubes, rotations = [], []
    for _ in range(count // 4):
        heads = simulate_heads(4, shape=(64,) * 3, voxel_size_mm=3.0, anatomy=anatomy, config=settings, generator=draw)
        cubes += list(zip(heads.image, heads.valid, strict=True))
        rotations += list(heads.rotation)
    names = [str(index) for index in range(len(cubes))]
    return make_template(cubes, torch.stack(rotations), [290.0] * len(cubes), names)


def of_simulated_stacks(count: int, seed: int, case: str) -> HeadTemplate:
    """Template of whole simulated stacks with motion, slices and all, or with one part of the simulator left out."""
    files = read_templates(None)
    heads = prepare_templates(files.atlases, files.epi)
    stacks = [
        simulate_stacks([seed_for(seed, "template", number)], templates=heads, config=CASES[case])[0]
        for number in range(count)
    ]
    return make_template(
        [head_cube(s.image, s.center_mm) for s in stacks], torch.stack([s.world_from_head for s in stacks]),
        [s.drawn.subject.brain_volume_ml for s in stacks], [str(number) for number in range(count)],
    )  # fmt: skip


def load_template(path: Path) -> HeadTemplate:
    """Template from a file of :func:`make`."""
    template = HeadTemplate()
    template.load_state_dict(load_file(path))
    return template


def make(args: argparse.Namespace) -> None:
    """Write the templates."""
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stacks:
        template = of_simulated_stacks(args.stacks, args.seed, args.case)
        save_file(template.state_dict(), args.out / f"template_{args.case.replace(' ', '_')}.safetensors")
        return
    if args.simulated:
        save_file(of_simulation(args.simulated, args.seed).state_dict(), args.out / "template_simulated.safetensors")
        return
    stacks = [s for s in load_stacks(DATA / "epi") if s.primary]
    for fold in (-1, 0, 1, 2, 3, 4):
        kept = [s for s in stacks if s.fold != fold]
        save_file(of_stacks(kept).state_dict(), args.out / f"template_{fold}.safetensors")
        print(fold, len(kept), "stacks of", len({s.fetus for s in kept}), "fetuses")


def errors(stack: Stack, rotation: torch.Tensor, center_mm: torch.Tensor) -> dict[str, Any]:
    """Angle, angle per axis of the head, distance."""
    difference = stack.rotation.double().mT @ rotation
    angle = float(geodesic_angle(rotation, stack.rotation.double()))
    skew = torch.stack([difference[2, 1] - difference[1, 2], difference[0, 2] - difference[2, 0],
                        difference[1, 0] - difference[0, 1]])  # fmt: skip
    axis = torch.nn.functional.normalize(skew, dim=0) * math.degrees(angle)
    return {
        "error_deg": math.degrees(angle),
        "error_about_head_axes_deg": [round(float(v), 2) for v in axis],
        "center_error_mm": float((center_mm - stack.center_mm).norm()),
    }


def oracle(stack: Stack, networks: dict[str, Any], settings: HeadSettings, *, unaided: bool) -> dict[str, Any]:
    """The rotation stages at the brain mark, with the reference volume."""
    guesses = torch.zeros(0, 3, 3)
    if not unaided:
        answer = find_rotation([networks["rotate"]], stack.cube, stack.valid, stack.volume_ml, settings.crop)
        guesses = answer.rotation[None]
    found = register_head(networks["template"], stack.cube, stack.valid, stack.volume_ml, guesses, settings.register)
    return {
        **errors(stack, found.rotation, stack.center_mm + found.shift_mm),
        "correlation": found.correlation, "lead": found.lead,
    }  # fmt: skip


def dice(stack: Stack, mask: Volume) -> float | None:
    """Overlap with the pseudo-mask on the stack's grid; None for grade C."""
    if stack.row["mask_grade"] == "C":
        return None
    image = nibabel.load(DATA / "epi" / "mask_pseudo" / f"{stack.id}_mask.nii.gz")
    truth, found = torch.from_numpy(numpy.asarray(image.dataobj) > 0.5), mask.data[0] > 0.5
    return float(2 * (truth & found).sum() / (truth.sum() + found.sum()))


def pipeline(stack: Stack, networks: dict[str, Any], settings: HeadSettings) -> dict[str, Any]:
    """The estimator as it is used, nothing given."""
    found = HeadEstimator(networks, settings).examine(stack.volume)
    if isinstance(found, str):
        return {"error_deg": math.nan, "center_error_mm": math.nan, "correlation": 0.0, "lead": 0.0}
    assert found.registration is not None
    pose = found.world_from_head
    network = math.degrees(float(geodesic_angle(found.answer.rotation.double(), stack.rotation.double())))
    return {
        **errors(stack, pose.rotation.double(), pose.translation_mm.double()),
        "correlation": found.registration.correlation, "lead": found.registration.lead, "network_error_deg": network,
        "dice": dice(stack, posed_brain(networks["template"], pose, found.registration.size, found.candidate.mask,
                                        stack.volume)[0]),
        "finder_dice": dice(stack, found.candidate.mask.resample(stack.volume.affine, stack.volume.shape)),
        "found_center_error_mm": float((found.candidate.center_mm.double() - stack.center_mm).norm()),
        "rotation": pose.rotation.tolist(),
    }  # fmt: skip


def judged(rows: list[dict[str, Any]], name: str, settings: dict[str, Any]) -> None:
    """Print and write one evaluation."""
    found = summary(rows)
    centers = torch.tensor([float(r["center_error_mm"]) for r in rows if r["primary"]])
    found |= {
        "center_median_mm": float(centers.nanquantile(0.5)),
        "center_within_10": float((centers < 10).float().mean()),
    }
    for key in ("dice", "finder_dice"):
        grades = {"a": [], "ab": []}
        for row in rows:
            if row.get(key) is not None and row["grade"] in "AB":
                grades["ab"].append(row[key])
                grades["a"] += [row[key]] if row["grade"] == "A" else []
        found |= {f"{key}_{grade}": sum(v) / len(v) for grade, v in grades.items() if v}
    print(name, {k: round(v, 3) for k, v in found.items()}, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"settings": settings, "summary": found, "stacks": rows}, indent=1, default=str)
    )


def over_stacks(stacks: list[Stack], run: Callable[[Stack], dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per stack."""
    rows = []
    for stack in stacks:
        begin = time.process_time()
        row = {"id": stack.id, "fetus": stack.fetus, "fold": stack.fold, "primary": stack.primary,
               "grade": stack.row["mask_grade"], **run(stack)}  # fmt: skip
        rows.append({**row, "cpu_s": round(time.process_time() - begin, 2)})
        print(
            {k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items() if k != "rotation"}, flush=True
        )
    return rows


def evaluate(args: argparse.Namespace) -> None:
    """Every stack with the networks of its fold."""
    stacks = load_stacks(DATA / "epi")
    kept: dict[str, Any] = {}

    def networks(fold: int) -> dict[str, Any]:
        paths = {
            name: str(getattr(args, name)).format(fold=fold) for name in ("finder", "rotator", "template")
        }  # fmt: skip
        loaders = {"finder": lambda p: load_finder(Path(p)), "rotator": load_network,
                   "template": lambda p: load_template(Path(p))}  # fmt: skip
        for name, path in paths.items():
            if path not in kept:
                kept[path] = loaders[name](path)
        return {"locate": kept[paths["finder"]], "rotate": kept[paths["rotator"]], "template": kept[paths["template"]]}

    settings = HeadSettings(volume_correction=VOLUME_CORRECTION, views=args.views)
    with torch.no_grad():
        if args.oracle:
            rows = over_stacks(stacks, lambda s: oracle(s, networks(s.fold), settings, unaided=args.unaided))
        else:
            rows = over_stacks(stacks, lambda s: pipeline(s, networks(s.fold), settings))
    judged(rows, args.name, vars(args))


def fetuses(args: argparse.Namespace) -> None:
    """Templates of few fetuses, oracle crops, no network."""
    stacks, settings = load_stacks(DATA / "epi"), RegisterConfig()
    for count in args.counts:
        for seed in args.seeds if count < 50 else args.seeds[:1]:
            templates = {}
            for fold in range(5):
                known = sorted({s.fetus for s in stacks if s.primary and s.fold != fold})
                order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
                chosen = {known[index] for index in order[:count]}
                templates[fold] = of_stacks([s for s in stacks if s.primary and s.fetus in chosen])

            def run(stack: Stack, templates: dict[int, HeadTemplate] = templates) -> dict[str, Any]:
                found = register_head(
                    templates[stack.fold], stack.cube, stack.valid, stack.volume_ml, torch.zeros(0, 3, 3), settings
                )
                where = stack.center_mm + found.shift_mm
                return {**errors(stack, found.rotation, where), "correlation": found.correlation, "lead": found.lead}

            primary = [s for s in stacks if s.primary]
            judged(over_stacks(primary, run), f"template_fetuses_{count}_seed_{seed}", vars(args))


def report(args: argparse.Namespace) -> None:
    """Tables for the page: every result by name, and every fetus of the first."""
    print("| row | stacks | median | mean | p95 | < 10 | < 20 | > 90 | by axis | fetuses | centre, mm | < 10 mm |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in args.names:
        content = json.loads((RESULTS / f"{name}.json").read_text())
        for which in (True, False):
            rows = [r for r in content["stacks"] if r["primary"] or not which]
            if not which and len(rows) == sum(r["primary"] for r in rows):
                continue
            error = torch.tensor([float(r["error_deg"]) for r in rows])
            center = torch.tensor([float(r["center_error_mm"]) for r in rows])
            about = torch.tensor([r["error_about_head_axes_deg"] for r in rows]).abs().median(0).values.tolist()
            fetuses = {r["fetus"] for r in rows}
            means = [torch.tensor([r["error_deg"] for r in rows if r["fetus"] == f]).mean() for f in fetuses]
            shares = [f"{100 * float((error < limit).float().mean()):.0f} %" for limit in (10, 20)]
            print(
                f"| `{name}` | {len(rows)} | {error.quantile(0.5):.1f} | {error.mean():.1f} | "
                f"{error.quantile(0.95):.0f} | "
                f"{' | '.join(shares)} | {int((error > 90).sum())} | {', '.join(f'{v:.0f}' for v in about)} | "
                f"{torch.stack(means).mean():.1f} | {center.quantile(0.5):.1f} | "
                f"{100 * float((center < 10).float().mean()):.0f} % |"
            )
    rows = json.loads((RESULTS / f"{args.names[0]}.json").read_text())["stacks"]
    print("\n| fetus | fold | rotation, degrees | centre, mm | correlation | lead |\n|---|---|---|---|---|---|")
    for fetus in sorted({r["fetus"] for r in rows}):
        own = [r for r in rows if r["fetus"] == fetus]
        columns = (("error_deg", ".0f"), ("center_error_mm", ".0f"), ("correlation", ".2f"), ("lead", ".2f"))
        told = [
            ", ".join(f"{r[key]:{form}}" if r["primary"] else f"({r[key]:{form}})" for r in own)
            for key, form in columns
        ]
        print(f"| {fetus} | {own[0]['fold']} | {' | '.join(told)} |")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    sub = verbs.add_parser("make")
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--simulated", type=int, default=0, help="so many simulated heads instead of the stacks")
    sub.add_argument("--stacks", type=int, default=0, help="so many whole simulated stacks instead")
    sub.add_argument("--case", choices=CASES, default="whole", help="of experiments/simulation/ablations.py")
    sub.add_argument("--seed", type=int, default=5)
    sub = verbs.add_parser("evaluate")
    sub.add_argument("--name", required=True)
    sub.add_argument("--template", required=True)
    sub.add_argument("--finder", default="../train/loc/segB_{fold}.safetensors")
    sub.add_argument("--rotator", default="../train/rot/ftb_{fold}/last.pt")
    sub.add_argument("--views", type=int, default=4)
    sub.add_argument("--oracle", action="store_true")
    sub.add_argument("--unaided", action="store_true")
    sub = verbs.add_parser("fetuses")
    sub.add_argument("--counts", type=int, nargs="+", default=[1, 4, 99])
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    sub = verbs.add_parser("report")
    sub.add_argument("names", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"make": make, "evaluate": evaluate, "fetuses": fetuses, "report": report}[args.verb](args)


if __name__ == "__main__":
    main()
