"""How much of an encoder's training and of `encode embed` goes into making the input.

    python benchmarks/brain_loading.py --data ../shared/data/adult/ixi_brain_2mm
    python benchmarks/brain_loading.py --data ... --sides 64 --device cuda --precision bf16 --workers 8

For each network and side: CPU seconds (device: wall seconds) of a scan's sample and of its training step, from the
second epoch on, when scans are open; the share of both that goes into samples with this process alone, and the share of
the wall time that a training with ``--workers`` processes waits for its next batch. Then the same for ``encode embed``:
reading, resampling and counting tissue by depth against the forward pass; and with every voxel split into eight, which
makes 1 mm of 2 mm. ``--networks`` without a name leaves the trainings out. One thread for torch; a minute on one core
at the defaults.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from equivox.formats.nifti import open_scan, write_volume
from equivox.geometry.space import Volume
from equivox.run.sampling import Drawn, Places, group_samples
from equivox.tasks.encode.data import open_brain
from equivox.tasks.encode.model import load_encode_model
from equivox.tasks.encode.train_config import PretrainConfig, pretrain_preset
from equivox.tasks.encode.train_course import PretrainCourse
from equivox.tasks.encode.train_data import find_subjects
from equivox.tasks.encode.train_samples import BrainSamples, Drawing, ScanSet, ScanStore

RECIPES = {"brain_encoder": "brain", "brain_cnn": "soe"}
"""Network -> the recipe that it is trained by."""


def clock(device: str) -> float:
    """CPU seconds of this process, or wall seconds once a device has done what it was told."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def samples_of(scans: ScanSet, config: PretrainConfig) -> BrainSamples:
    """What `equivox encode pretrain` draws."""
    turned = config.reference == "turned"
    drawing = Drawing(
        side=config.side, ranges=config.ranges, paired=config.paired, turn_first=turned,
        degrade_first=turned and config.strength > 0, holes="erased" in config.terms,
    )  # fmt: skip
    return BrainSamples(ScanStore(scans, config.voxel_size_mm), drawing, training=True, seed=0)


def training(scans: ScanSet, config: PretrainConfig, device: str, precision: str, workers: int) -> dict[str, float]:
    """Seconds per scan of samples and of steps, and the share of waiting with workers."""
    samples = samples_of(scans, config)
    course = PretrainCourse(config, seed=0)
    course.network.to(device)
    optimizer = course.optimizer()

    def step(group: dict[str, torch.Tensor]) -> None:
        group = {name: tensor.to(device) for name, tensor in group.items()}
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = course.training_values(group)["loss"].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    started = time.process_time()
    for position in range(len(scans)):
        samples.sample(0, position)
    first = (time.process_time() - started) / len(scans)
    started = time.process_time()
    drawn = [samples.sample(1, position) for position in range(len(scans))]
    later = (time.process_time() - started) / len(scans)
    batches = [drawn[start : start + config.batch_size] for start in range(0, len(drawn), config.batch_size)]
    groups = [group_samples(batch)[0] for batch in batches if len(batch) == config.batch_size]
    step(groups[0])
    started = clock(device)
    for group in groups:
        step(group)
    cost = (clock(device) - started) / (len(groups) * config.batch_size)
    found = {"sample_first_s": first, "sample_s": later, "step_s": cost, "share": later / (later + cost)}
    if workers:
        places = Places(len(scans), follows=True)
        loader = DataLoader(
            Drawn(samples), batch_size=config.batch_size, sampler=places, collate_fn=group_samples,
            num_workers=workers, persistent_workers=True,
        )  # fmt: skip
        for epoch in (0, 1):
            places.set_epoch(epoch)
            waited, whole = 0.0, time.perf_counter()
            batches_of_epoch = iter(loader)
            while True:
                asked = time.perf_counter()
                batch = next(batches_of_epoch, None)
                waited += time.perf_counter() - asked
                if batch is None:
                    break
                step(batch[0])
            clock(device)
            whole = time.perf_counter() - whole
        found["waiting_share"] = waited / whole
    return found


def embedding(scans: ScanSet, model_name: str, device: str) -> dict[str, float]:
    """Seconds per scan of reading and resampling, and of the forward pass."""
    model = load_encode_model(model_name, device)
    read, tissue, forward = 0.0, 0.0, 0.0
    for number, subject in enumerate(scans.subjects[:5]):
        assert subject.path is not None
        started = time.process_time()
        source = open_brain(subject.path, voxel_size_mm=model.voxel_size_mm)
        brain = source.sample(side=model.side)
        counted = time.process_time()
        source.tissue_depths()
        middle, begun = time.process_time(), clock(device)
        model.code([brain])
        if number:  # the first pays for what is built once
            read, forward = read + middle - started, forward + clock(device) - begun
            tissue += middle - counted
    count = min(5, len(scans)) - 1
    return {
        "read_s": read / count, "of_it_tissue_s": tissue / count, "forward_s": forward / count,
        "share": read / (read + forward),
    }  # fmt: skip


def split_voxels(scans: ScanSet, folder: Path) -> ScanSet:
    """Copies of the first five with every voxel split into eight: half the voxel size, the same brain."""
    copies = []
    for subject in scans.subjects[:5]:
        assert subject.path is not None
        volume = open_scan(subject.path).frame(0)
        fine = volume.data[0]
        for axis in range(3):
            fine = fine.repeat_interleave(2, dim=axis)
        affine = volume.affine.clone()
        affine[:3, 3] -= 0.25 * affine[:3, :3].sum(1)
        affine[:3, :3] /= 2
        path = folder / subject.path.name
        write_volume(path, Volume(fine[None], affine, path.name), dtype="uint8")
        copies.append(replace(subject, path=path))
    return ScanSet(tuple(copies))


def main() -> None:
    """Print a table; JSON on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sides", type=int, nargs="+", default=[32])
    parser.add_argument("--networks", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--model", default="brain-encoder-t1")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found, _ = find_subjects([given.data / "subjects.csv"], images=given.data / "t1")
    scans = ScanSet(tuple(found[: given.scans]))
    rows = []
    for side in given.sides:
        for network in given.networks:
            config = pretrain_preset(RECIPES[network]).with_values(
                side=side, voxel_size_mm=3.3 * 64 / side, batch_size=given.batch
            )
            numbers = training(scans, config, given.device, given.precision, given.workers)
            rows.append(
                {"network": network, "side": side, **{name: round(value, 4) for name, value in numbers.items()}}
            )
            print(json.dumps(rows[-1]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, part in {"": scans, ", voxels split": split_voxels(scans, Path(folder))}.items():
            embed = {key: round(value, 4) for key, value in embedding(part, given.model, given.device).items()}
            rows.append({"network": f"embed {given.model}{name}", **embed})
            print(json.dumps(rows[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
