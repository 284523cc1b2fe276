"""Check a model folder from end to end, one line per finding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from equivox.errors import ModelFolderError
from equivox.weights.folder import CARD, CERTIFICATE, LICENSE, ModelFolder, read_model_folder, read_weights

CODE_SUFFIXES = frozenset({".py", ".pyc", ".so", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".sh"})
"""Files that could run something when they are loaded; a model folder has none."""


@dataclass(frozen=True, slots=True)
class Check:
    """One property of a model folder: its name, whether it holds, and what was seen."""

    name: str
    ok: bool
    message: str


def verify_model(path: Path) -> list[Check]:
    """Check configuration, digests, shapes, finite weights, card, certificate, licence, and that nothing can run.

    Never raises for a broken folder: what is wrong is a failed check.
    """
    try:
        folder = read_model_folder(path)
    except ModelFolderError as error:
        return [Check("configuration", False, str(error))]
    checks = [Check("configuration", True, f"{folder.name}: task {folder.config['task']}, all keys known")]
    return [*checks, _weights(folder), _networks(folder), *_companions(folder), _nothing_runs(path)]


def _weights(folder: ModelFolder) -> Check:
    """Digests fit and every number is finite."""
    try:
        state = read_weights(folder)
    except ModelFolderError as error:
        return Check("weights", False, str(error))
    for network, tensors in state.items():
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                return Check("weights", False, f"{network}.{name} holds NaN or infinite values")
    count = sum(tensor.numel() for tensors in state.values() for tensor in tensors.values())
    return Check("weights", True, f"both digests fit, {count:,} finite numbers")


def _networks(folder: ModelFolder) -> Check:
    """Every network can be built and takes its weights."""
    try:
        built = folder.networks()
    except ModelFolderError as error:
        return Check("networks", False, str(error))
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in built.items()}
    return Check("networks", True, ", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items()))


def _companions(folder: ModelFolder) -> list[Check]:
    """Card, licence and certificate are there and say something."""
    checks = []
    for name in (CARD, LICENSE):
        filled = (folder.path / name).is_file() and bool((folder.path / name).read_text(errors="replace").strip())
        checks.append(Check(name, filled, "present" if filled else "missing or empty"))
    try:
        entries = len(folder.certificate())
    except ModelFolderError as error:
        return [*checks, Check(CERTIFICATE, False, str(error))]
    return [*checks, Check(CERTIFICATE, entries > 0, f"{entries} entries" if entries else "missing or empty")]


def _nothing_runs(path: Path) -> Check:
    """No file of a kind that runs or unpickles, and no link that leads elsewhere."""
    for item in sorted(path.rglob("*")):
        if item.suffix.lower() in CODE_SUFFIXES:
            return Check("no code", False, f"{item.name} has no place in a model folder: it could run when loaded")
        if item.is_symlink():
            return Check("no code", False, f"{item.name} is a link; a model folder holds plain files")
    return Check("no code", True, "plain data only")
