"""What ``equivox doctor`` looks at: is this installation sound, and what would make it fail later?"""

from __future__ import annotations

import importlib.metadata
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch

from equivox import __version__
from equivox.errors import EquivoxError, OutputError
from equivox.formats.atomic import require_folder
from equivox.geometry.rotations import cube_group
from equivox.nn.conv3d import SteerableConv3d
from equivox.run.device import choose_device
from equivox.run.record import versions
from equivox.testing import equivariance_error, plain_control
from equivox.weights.folder import list_models, model_homes
from equivox.weights.verify import verify_model

GIB = 1024**3
MEMORY_NEEDED_GIB = 2.5
"""Peak of ``pose predict`` with a model of the published size."""
LARGEST_ERROR, SMALLEST_CONTROL = 1e-5, 1e-2
DEVELOPERS_EXTRAS = ("dev", "docs")
HARMFUL = {"lightning": ("2.6.2", "2.6.3"), "pytorch-lightning": ("2.6.2", "2.6.3")}
"""Releases that stole credentials when imported (Lightning-AI/pytorch-lightning#21689)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``ok``, a ``note`` (works, but know this), or a ``fail``."""

    name: str
    level: Literal["ok", "note", "fail"]
    text: str
    facts: dict[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return asdict(self)


def check_installation() -> Iterator[Finding]:
    """Look at everything, in the order in which it is printed. Opens no network connection."""
    yield check_versions()
    yield check_device()
    yield check_memory()
    yield from check_places()
    yield from check_extras()
    yield from check_models()
    yield check_equivariance()


def check_versions() -> Finding:
    """Versions of what makes results; a release known to be harmful fails."""
    found = versions()
    for package, releases in HARMFUL.items():
        if found.get(package) in releases:
            text = (
                f"{package} {found[package]} is a release that stole credentials: uninstall it, change your passwords."
            )
            return Finding("versions", "fail", text, {**found})
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    text = f"equivox {__version__}, python {found['python']}, torch {torch.__version__} ({build})"
    return Finding("versions", "ok", text, {**found})


def check_device() -> Finding:
    """The device that ``auto`` takes, with the reason, and the threads."""
    choice = choose_device("auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    text = f"{choice.device} ({choice.reason}); {threads} thread(s) on {cores} core(s)"
    return Finding("device", "ok", text, {**choice.as_dict(), "threads": threads, "cores": cores})


def check_memory() -> Finding:
    """Memory that is free now, container limits included."""
    memory = psutil.virtual_memory()
    total, free = memory.total / GIB, memory.available / GIB
    limit = _container_limit_gib()
    if limit is not None and limit < total:
        total, free = limit, min(free, limit)
    facts: dict[str, object] = {"total_gib": round(total, 2), "available_gib": round(free, 2)}
    text = f"{free:.1f} of {total:.1f} GiB free"
    if free < MEMORY_NEEDED_GIB:
        return Finding("memory", "note", f"{text}; a model of the published size needs {MEMORY_NEEDED_GIB} GiB", facts)
    return Finding("memory", "ok", text, facts)


def check_places() -> Iterator[Finding]:
    """Whether the current folder and the one for temporary files can be written."""
    places: tuple[tuple[str, Path, Literal["note", "fail"]], ...] = (
        ("current folder", Path.cwd(), "note"),
        ("temporary folder", Path(tempfile.gettempdir()), "fail"),
    )
    for name, folder, level in places:
        free = psutil.disk_usage(str(folder)).free / GIB
        facts: dict[str, object] = {"path": str(folder), "free_gib": round(free, 2)}
        try:
            require_folder(folder)
        except OutputError as error:
            yield Finding(name, level, str(error), facts)
        else:
            yield Finding(name, "ok", f"{folder} can be written, {free:.1f} GiB free", facts)


def check_extras() -> Iterator[Finding]:
    """Optional packages by extra, read from the installed metadata."""
    for extra, packages in extras().items():
        missing = [package for package in packages if not _is_installed(package)]
        facts: dict[str, object] = {"packages": packages, "missing": missing}
        if missing:
            text = f'{", ".join(missing)} not installed; if you need it: pip install "equivox[{extra}]"'
            yield Finding(f"extra {extra}", "note", text, facts)
        else:
            yield Finding(f"extra {extra}", "ok", "installed", facts)


def extras() -> dict[str, list[str]]:
    """Packages of each extra for users, in the order of the metadata; empty when equivox itself is not installed."""
    try:
        lines = importlib.metadata.requires("equivox") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in lines:
        match = re.match(r"""([A-Za-z0-9._-]+).*;.*extra\s*==\s*["'](\w+)["']""", line)
        if match and match[2] not in DEVELOPERS_EXTRAS:
            found.setdefault(match[2], []).append(match[1])
    return found


def check_models() -> Iterator[Finding]:
    """Every model folder that a name finds, with its digest."""
    models = list_models()
    if not models:
        homes = " or ".join(str(home) for home in model_homes())
        yield Finding("models", "note", f"no model folder in {homes}; give --model a folder, or import one")
    for path, model in models:
        name = f"model {path.name}"
        if isinstance(model, EquivoxError):
            yield Finding(name, "fail", str(model), {"path": str(path)})
            continue
        wrong = [check for check in verify_model(path) if not check.ok]
        facts: dict[str, object] = {"path": str(path), "sha256": model.sha256}
        if wrong:
            yield Finding(name, "fail", f"{path}: {wrong[0].name}: {wrong[0].message}", facts)
        else:
            yield Finding(name, "ok", f"sha256 {model.sha256[:16]}, digests fit ({path})", facts)


def check_equivariance() -> Finding:
    """Turn the input of two layers by the 24 rotations of the cube; a plain convolution must fail the same test."""
    start = time.process_time()
    draw = torch.Generator().manual_seed(0)
    layers = torch.nn.Sequential(
        SteerableConv3d("1x0e", "4x0e + 2x1o + 1x2e", 5, generator=draw),
        SteerableConv3d("4x0e + 2x1o + 1x2e", "2x0e + 1x1o", 5, generator=draw),
    ).eval()
    control = plain_control("1x0e", "2x0e + 1x1o", generator=draw, dtype=torch.float32)
    worst, control_error = (
        float(
            equivariance_error(
                function, "1x0e", "2x0e + 1x1o", cube_group(), generator=draw, method="grid", side=9, batch=1,
                dtype=torch.float32,
            ).max()
        )
        for function in (layers, control)
    )  # fmt: skip
    seconds = time.process_time() - start
    facts: dict[str, object] = {"worst_error": worst, "control_error": control_error, "cpu_seconds": round(seconds, 2)}
    text = f"24 cube rotations, worst error {worst:.1e} (plain convolution {control_error:.1e}), {seconds:.1f} CPU s"
    passed = worst <= LARGEST_ERROR and control_error >= SMALLEST_CONTROL
    return Finding("equivariance", "ok" if passed else "fail", text, facts)


def _is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _container_limit_gib() -> float | None:
    """Memory limit of the control group that this process runs in, if there is one."""
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text) / GIB
    return None
