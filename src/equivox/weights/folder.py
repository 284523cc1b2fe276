"""The model folder: how every network is kept, read back without running anyone's code.

``config.json`` (what it is and how it is built), ``model.safetensors`` (all networks, keys ``<network>.<name>``),
``README.md`` (the card), ``certificate.json`` (measured equivariance), ``LICENSE``. The configuration holds a digest of
the weights, and the weights' header a digest of the configuration, so that neither changes unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

import equivox
from equivox.errors import ModelFolderError, OutputError, did_you_mean
from equivox.weights.registry import build_network

SCHEMA = "equivox.model/1"
FORMAT_VERSION = 1
REQUIRED = ("schema", "format_version", "name", "task", "behaviour", "networks", "weights_sha256")
OPTIONAL = ("input", "output", "settings", "provenance", "license")
CONFIG, WEIGHTS, CARD, CERTIFICATE, LICENSE = (
    "config.json",
    "model.safetensors",
    "README.md",
    "certificate.json",
    "LICENSE",
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model folder whose configuration has been read and checked; weights are read by :meth:`networks`.

    Parameters
    ----------
    name
        As in its configuration.
    path
        The folder.
    config
        Content of ``config.json``: see :data:`REQUIRED` and :data:`OPTIONAL`.
    """

    name: str
    path: Path
    config: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Digest of the weights together with the configuration: what a result names as its model."""
        return hashlib.sha256((self.path / CONFIG).read_bytes()).hexdigest()

    def as_dict(self) -> dict[str, str]:
        """What results and run records say of their model."""
        return {"name": self.name, "sha256": self.sha256, "path": str(self.path)}

    def networks(self, *, overrides: Mapping[str, Mapping[str, object]] | None = None) -> dict[str, nn.Module]:
        """Build every network with its weights, in evaluation mode on the CPU.

        Parameters
        ----------
        overrides
            Fields to replace per network, for those that choose a behaviour and hold no weights.

        Raises
        ------
        ModelFolderError
            If a digest or a shape does not fit, a tensor is missing or left over, or an architecture is unknown.
        """
        state = read_weights(self)
        built: dict[str, nn.Module] = {}
        for network, fields in self.config["networks"].items():
            changed = {**fields, **((overrides or {}).get(network, {}))}
            module = build_network(changed, where=f"{self.path / CONFIG} (network {network!r})")
            _load(module, state.pop(network, {}), where=f"{self.path / WEIGHTS} (network {network!r})")
            built[network] = module.eval()
        if state:
            raise ModelFolderError(
                f"{self.path / WEIGHTS} holds weights of {', '.join(sorted(state))}, which {CONFIG} does not name; "
                f"the two files do not belong together."
            )
        return built

    def certificate(self) -> dict[str, Any]:
        """Content of ``certificate.json``; empty where there is none."""
        path = self.path / CERTIFICATE
        return _read_json(path) if path.exists() else {}


def read_model_folder(path: Path) -> ModelFolder:
    """Read and check ``config.json`` of a folder; weights are not touched yet.

    Raises
    ------
    ModelFolderError
        If the folder or its configuration is missing, unreadable, of a later format, or has missing or unknown keys.
    """
    if not path.is_dir():
        raise ModelFolderError(f"{path} is no model folder: there is no such folder.")
    if not (path / CONFIG).is_file():
        raise ModelFolderError(f"{path} is no model folder: it has no {CONFIG}.")
    config = _read_json(path / CONFIG)
    where = path / CONFIG
    if config.get("schema") != SCHEMA or config.get("format_version") != FORMAT_VERSION:
        raise ModelFolderError(
            f"{where} has the schema {config.get('schema')!r}, format {config.get('format_version')!r}; this version "
            f"of equivox reads {SCHEMA!r}, format {FORMAT_VERSION}: use a version that fits the folder."
        )
    known = [*REQUIRED, *OPTIONAL]
    for key in config:
        if key not in known:
            raise ModelFolderError(f"{where} has the unknown key {key!r}{did_you_mean(key, known)}.")
    missing = [key for key in REQUIRED if key not in config]
    if missing:
        raise ModelFolderError(f"{where} lacks {', '.join(missing)}; the folder was not written whole.")
    networks = config["networks"]
    if not isinstance(networks, dict) or not all(isinstance(fields, dict) for fields in networks.values()):
        raise ModelFolderError(f'{where} has "networks" that are not a table of networks; write the folder again.')
    return ModelFolder(name=str(config["name"]), path=path, config=config)


def read_weights(folder: ModelFolder) -> dict[str, dict[str, Tensor]]:
    """Tensors of every network by its name, after both digests were compared.

    Raises
    ------
    ModelFolderError
        If the file is missing or damaged, or a digest does not fit.
    """
    path = folder.path / WEIGHTS
    if not path.is_file():
        raise ModelFolderError(f"{folder.path} has no {WEIGHTS}; fetch the whole folder again.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(f"{path} is truncated or damaged ({error}); fetch it again.") from error
    if metadata.get("config_sha256") != hashlib.sha256((folder.path / CONFIG).read_bytes()).hexdigest():
        raise ModelFolderError(
            f"{folder.path / CONFIG} was changed after the weights were written; restore it, or write the folder again."
        )
    if tensors_sha256(flat) != folder.config["weights_sha256"]:
        raise ModelFolderError(f"{path} does not hold the weights that {CONFIG} describes; fetch the folder again.")
    state: dict[str, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        network, _, rest = name.partition(".")
        state.setdefault(network, {})[rest] = tensor
    return state


def write_model_folder(
    path: Path,
    *,
    name: str,
    task: str,
    behaviour: str,
    networks: Mapping[str, Mapping[str, object]],
    weights: Mapping[str, Mapping[str, Tensor]],
    card: str,
    certificate: Mapping[str, Any],
    license_text: str,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a whole model folder, under a temporary name first.

    Parameters
    ----------
    path
        Where it shall be.
    name, task, behaviour
        For ``config.json``: for example ``"fetal-head-epi"``, ``"pose"``, ``"equivox"``.
    networks
        Fields of every network, ``"architecture"`` among them.
    weights
        State dict of every network, of the same names.
    card
        ``README.md``: YAML front matter, intended use, data, numbers with their commands, limits.
    certificate
        ``certificate.json``: equivariance errors, tolerance, control.
    license_text
        ``LICENSE``.
    extra
        Further keys of ``config.json``: ``input``, ``output``, ``settings``, ``provenance``, ``license``.
    files
        Further text files by name, such as ``heldout.csv``.
    overwrite
        Replace a model folder that is already there.

    Raises
    ------
    OutputError
        If the place is taken or cannot be written to.
    """
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; pass --overwrite to replace it, or choose another folder.")
    if path.exists() and any(path.iterdir()) and not (path / CONFIG).is_file():
        raise OutputError(f"{path} is not a model folder and will not be replaced; choose another folder.")
    flat = {
        f"{network}.{key}": tensor.detach().cpu().contiguous()
        for network, state in weights.items()
        for key, tensor in state.items()
    }
    config = {
        "schema": SCHEMA,
        "format_version": FORMAT_VERSION,
        "name": name,
        "task": task,
        "behaviour": behaviour,
        "networks": {network: dict(fields) for network, fields in networks.items()},
        "weights_sha256": tensors_sha256(flat),
        **(extra or {}),
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
    try:
        (draft / CONFIG).write_text(text)
        (draft / WEIGHTS).write_bytes(_safetensors(flat, digest))
        (draft / CARD).write_text(card)
        (draft / CERTIFICATE).write_text(json.dumps(certificate, indent=2, sort_keys=True) + "\n")
        (draft / LICENSE).write_text(license_text)
        for extra_name, content in (files or {}).items():
            (draft / extra_name).write_text(content)
        for written in draft.iterdir():
            written.chmod(0o644)
        draft.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(draft, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} cannot be written ({error}); free some space or choose another folder.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return read_model_folder(path)


def find_model(name_or_folder: str | Path) -> ModelFolder:
    """Find a model by its name, or read the folder given: see :func:`locate_model`.

    Raises
    ------
    ModelFolderError
        If there is no such model, or its folder is broken.
    """
    return read_model_folder(locate_model(name_or_folder))


def locate_model(name_or_folder: str | Path) -> Path:
    """The folder of a model.

    A name (no separator in it) is looked up in ``EQUIVOX_HOME`` (default ``~/.local/share/equivox/models``), then among
    the models shipped in the package, and nowhere else: nothing is downloaded, and a folder of the working directory is
    used only when it is written as a path (``./name``).

    Raises
    ------
    ModelFolderError
        If no model has this name (with the nearest one).
    """
    if isinstance(name_or_folder, Path) or "/" in name_or_folder or os.sep in name_or_folder:
        return Path(name_or_folder).expanduser()
    name = name_or_folder
    for home in model_homes():
        if name not in ("", ".", "..") and (home / name).is_dir():
            return home / name
    known = [folder.name for home in model_homes() for folder in _candidates(home)]
    hint = did_you_mean(name, known)
    if (Path(name) / CONFIG).is_file():
        hint = f"; write ./{name} for the folder of that name here"
    raise ModelFolderError(
        f"there is no model named {name!r} in {' or '.join(str(home) for home in model_homes())}{hint}; "
        f"known are: {', '.join(sorted(set(known))) or 'none'}."
    )


def list_models() -> list[tuple[Path, ModelFolder | ModelFolderError]]:
    """Every model folder by path: read, or the error that says why it cannot be. A user's model hides a shipped one."""
    found: dict[str, tuple[Path, ModelFolder | ModelFolderError]] = {}
    for home in model_homes():
        for path in _candidates(home):
            if path.name in found:
                continue
            try:
                found[path.name] = (path, read_model_folder(path))
            except ModelFolderError as error:
                found[path.name] = (path, error)
    return [found[name] for name in sorted(found)]


def model_homes() -> tuple[Path, Path]:
    """Where names are looked up: the user's folder, then the package's."""
    chosen = os.environ.get("EQUIVOX_HOME")
    home = Path(chosen).expanduser() if chosen else Path.home() / ".local" / "share" / "equivox" / "models"
    return home, Path(equivox.__file__).parent / "models"


def _candidates(home: Path) -> list[Path]:
    """Folders of a home that hold a configuration."""
    if not home.is_dir():
        return []
    return sorted(path for path in home.iterdir() if (path / CONFIG).is_file() and not path.name.startswith("."))


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Digest of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _safetensors(tensors: Mapping[str, Tensor], config_sha256: str) -> bytes:
    """A safetensors file whose metadata are sorted: the library writes them in random order."""
    metadata = {"format": "pt", "equivox_version": equivox.__version__, "config_sha256": config_sha256}
    raw = save(dict(tensors), metadata)
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    return raw[:8] + text + raw[8 + length :]


def _load(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Copy weights into a network; the first thing that does not fit is named."""
    wanted = module.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            raise ModelFolderError(f"{where} lacks {name}; fetch the folder again.")
        if state[name].shape != tensor.shape:
            raise ModelFolderError(
                f"{where}: {name} has shape {tuple(state[name].shape)}, {CONFIG} asks for {tuple(tensor.shape)}; "
                f"the two files do not belong together."
            )
    left_over = [name for name in state if name not in wanted]
    if left_over:
        raise ModelFolderError(
            f"{where} holds {left_over[0]}, which the network does not have{did_you_mean(left_over[0], list(wanted))}."
        )
    module.load_state_dict(dict(state))


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds one table."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelFolderError(f"{path} cannot be read as JSON ({error}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} holds {type(content).__name__}, expected a table; fetch it again.")
    return content
