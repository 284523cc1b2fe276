"""Read checkpoints of strangers without running anything of theirs, and say what they are."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from equivox.errors import ModelFolderError

Kind = Literal["unet", "pose_net"]

DESCRIPTIONS: Mapping[Kind, str] = {
    "unet": "the segmentation U-Net (a Lightning .ckpt)",
    "pose_net": "the E(3)-CNN (a .pth)",
}
"""What each kind of published checkpoint is called in messages."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a torch checkpoint with the restricted unpickler: tensors and plain Python values, nothing else.

    Raises
    ------
    ModelFolderError
        In one sentence: the file is missing, a folder, empty, truncated, no checkpoint at all, holds objects whose
        loading would run code, or is not a dictionary.
    """
    if not path.exists():
        raise ModelFolderError(f"{path} does not exist; give the path of a checkpoint.")
    if path.is_dir():
        raise ModelFolderError(f"{path} is a folder; give the checkpoint file inside it.")
    if path.stat().st_size == 0:
        raise ModelFolderError(f"{path} is empty; fetch the checkpoint again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error
    except Exception as error:  # whatever a damaged or hostile file provokes ends in one sentence
        raise ModelFolderError(_reason(path, error)) from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ModelFolderError(
            f"{path} holds {_a(type(loaded).__name__)}, not the dictionary of a checkpoint; give the file that the "
            f"training wrote."
        )
    return loaded


def published_state(path: Path, expected: Kind) -> dict[str, Tensor]:
    """Tensors of a published checkpoint under their original names, without the prefix of the container.

    Parameters
    ----------
    path
        Checkpoint file.
    expected
        Which of the two networks it must hold.

    Raises
    ------
    ModelFolderError
        If the file cannot be read or holds something else; the sentence says what it is and what was expected.
    """
    content = read_checkpoint(path)
    kind = _kind(content)
    if kind != expected:
        found = DESCRIPTIONS[kind] if kind else _describe_unknown(content)
        raise ModelFolderError(f"{path} is {found}; expected {DESCRIPTIONS[expected]}.")
    if expected == "unet":
        state = {
            name.removeprefix("model."): value
            for name, value in content["state_dict"].items()
            if name.startswith("model.")
        }
    else:
        state = {name.removeprefix("net."): value for name, value in content["net_state_dict"].items()}
    bad = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if bad:
        raise ModelFolderError(f"{path} holds {bad[0]}, which is no tensor; the checkpoint is damaged.")
    broken = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise ModelFolderError(f"{path} holds NaN or infinite weights in {broken[0]}; the training had diverged.")
    return state


def _kind(content: Mapping[str, Any]) -> Kind | None:
    """Tell the two published containers apart by their keys."""
    net = content.get("net_state_dict")
    if isinstance(net, Mapping) and any(str(name).startswith("net.down.down_blocks.") for name in net):
        return "pose_net"
    state = content.get("state_dict")
    if isinstance(state, Mapping) and any(str(name).startswith("model.list_encoder_blocks.") for name in state):
        return "unet"
    return None


def _describe_unknown(content: Mapping[str, Any]) -> str:
    """Say what a well-formed file of another kind looks like."""
    for name in ("state_dict", "net_state_dict"):
        state = content.get(name)
        if isinstance(state, Mapping):
            first = ", ".join(str(key) for key in list(state)[:2]) or "nothing"
            return f"a checkpoint of another network (its {name} begins with {first})"
    return f"no checkpoint of ours (its keys are {', '.join(list(content)[:4]) or 'none'})"


def _reason(path: Path, error: Exception) -> str:
    """One sentence for a file that the restricted loader refused."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"Unsupported (?:global|class) ([\w.]+)", text)
    if named:
        return (
            f"{path} holds the Python object {named.group(1)}, whose loading would run foreign code; nothing of it was "
            f"loaded: ask for a checkpoint with tensors only."
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"PK"):
        return f"{path} is a torch checkpoint that is truncated or damaged; fetch it again."
    if isinstance(error, pickle.UnpicklingError) and head[:1] == b"\x80":
        return (
            f"{path} is a pickle with more than tensors in it, whose loading could run foreign code, or a damaged one; "
            f"nothing of it was loaded: ask for a checkpoint with tensors only."
        )
    return f"{path} is not a torch checkpoint; give the file that the training wrote."


def _a(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
