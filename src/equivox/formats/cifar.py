"""CIFAR-10 and CIFAR-100 as their authors distribute them: binary records, or pickled batches.

The pickled batches are not unpickled: a small machine runs the few steps that such a file needs (numbers, texts, lists,
tables, and the one way in which NumPy stores an array) and refuses everything else, so that nothing in it can run.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import Array

SIDE = 32
PIXELS = 3 * SIDE * SIDE
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARRAY_MAKERS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_MARK = object()


@dataclass(frozen=True, slots=True)
class CifarSet:
    """Images [channel, y, x], classes, and which images belong to the official test part."""

    images: UInt8[Tensor, "image 3 32 32"]
    labels: Int[Tensor, "image"]
    is_test: tuple[bool, ...]
    classes: tuple[str, ...]


def is_cifar(folder: Path) -> bool:
    """Whether a folder holds the batches of CIFAR-10 or CIFAR-100, in either form."""
    return bool(_members(folder))


def read_cifar(folder: Path) -> CifarSet:
    """Read every batch that is there.

    Raises
    ------
    InputError
        If a batch is damaged, holds anything but what such a batch holds, or labels have no name.
    """
    members = _members(folder)
    if not members:
        raise InputError(f"{folder} holds no batches of CIFAR (data_batch_1, data_batch_1.bin, train.bin …).")
    images, labels, tests = [], [], []
    for path, test in members:
        pixels, numbers = _read_binary(path) if path.suffix == ".bin" else _read_pickled(path)
        images.append(torch.from_numpy(pixels.reshape(-1, 3, SIDE, SIDE).copy()))
        labels += numbers
        tests += [test] * len(numbers)
    classes = _class_names(folder, max(labels) + 1)
    return CifarSet(torch.cat(images), torch.tensor(labels), tuple(tests), classes)


def _members(folder: Path) -> list[tuple[Path, bool]]:
    """Batches with whether they are for testing."""
    for ending in ("", ".bin"):
        ten = [(folder / f"{name}{ending}", False) for name in TRAIN_BATCHES] + [(folder / f"test_batch{ending}", True)]
        hundred = [(folder / f"train{ending}", False), (folder / f"test{ending}", True)]
        for chosen in (ten, hundred):
            there = [(path, test) for path, test in chosen if path.is_file()]
            if there:
                return there
    return []


def _read_binary(path: Path) -> tuple[Array, list[int]]:
    """Records of one label byte (two for CIFAR-100, the second one finer) and 3072 pixels."""
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    extra = 2 if path.stem in ("train", "test") else 1
    size = PIXELS + extra
    if len(content) == 0 or len(content) % size:
        raise InputError(f"{path} has {len(content)} bytes, no whole number of records of {size}; copy it again.")
    records = content.reshape(-1, size)
    return records[:, extra:], [int(value) for value in records[:, extra - 1]]


def _read_pickled(path: Path) -> tuple[Array, list[int]]:
    """The table of a pickled batch."""
    table = _table(path)
    pixels = table.get("data")
    labels = table.get("labels", table.get("fine_labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise InputError(f"{path} holds no array of images of {PIXELS} numbers; it is no batch of CIFAR.")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(isinstance(one, int) for one in labels):
        raise InputError(f"{path} holds no list of {len(pixels)} labels; it is no batch of CIFAR.")
    if min(labels, default=0) < 0:
        raise InputError(f"{path} holds the label {min(labels)}; classes are numbered from 0.")
    return pixels, labels


def _class_names(folder: Path, count: int) -> tuple[str, ...]:
    """From the file beside the batches, else the known ten, else numbers."""
    for name in ("batches.meta.txt", "fine_label_names.txt"):
        if (folder / name).is_file():
            lines = [
                line.strip() for line in (folder / name).read_text(encoding="utf-8", errors="replace").splitlines()
            ]
            names = tuple(line for line in lines if line)
            if len(names) >= count:
                return names
    for name in ("batches.meta", "meta"):
        if (folder / name).is_file():
            table = _table(folder / name)
            found = table.get("label_names", table.get("fine_label_names"))
            if isinstance(found, list) and len(found) >= count:
                return tuple(_text(one) for one in found)
    return TEN if count <= len(TEN) else tuple(str(number) for number in range(count))


def _table(path: Path) -> dict[str, Any]:
    """The dictionary that a pickled file holds, its keys as text."""
    try:
        found = _run(path.read_bytes(), path)
    except InputError:
        raise
    except Exception as error:  # whatever a broken file makes of the machine
        raise InputError(f"{path} is no whole batch of CIFAR ({error}); copy it again from its source.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {type(found).__name__}, no table; it is no batch of CIFAR.")
    return {_text(key): value for key, value in found.items()}


class _Array:
    """An array that waits for its state."""

    def __init__(self) -> None:
        self.value: Array | None = None


def _run(content: bytes, path: Path) -> Any:
    """Run the steps of a pickle that a batch may have."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name == "STOP":
            return _finished(stack[-1])
        if name in ("PROTO", "FRAME"):
            continue
        if name == "MARK":
            stack.append(_MARK)
        elif name in _VALUES:
            stack.append(_VALUES[name] if _VALUES[name] is not Ellipsis else argument)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]())
        elif name in ("DICT", "LIST", "TUPLE"):
            parts = _to_mark(stack)
            whole = dict(zip(parts[::2], parts[1::2], strict=True)) if name == "DICT" else parts
            stack.append(tuple(parts) if name == "TUPLE" else whole)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            parts = stack[-count:]
            del stack[-count:]
            stack.append(tuple(parts))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(str(argument))])
        elif name in ("SETITEM", "SETITEMS"):
            parts = _to_mark(stack) if name == "SETITEMS" else [stack.pop() for _ in range(2)][::-1]
            stack[-1].update(zip(parts[::2], map(_finished, parts[1::2]), strict=True))
        elif name in ("APPEND", "APPENDS"):
            parts = _to_mark(stack) if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(parts)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = " ".join([*map(str, [stack.pop(), stack.pop()][::-1])]) if argument is None else str(argument)
            stack.append(_known_global(wanted, path))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, arguments, path))
        elif name == "BUILD":
            state, thing = stack.pop(), stack[-1]
            _build(thing, state, path)
        else:
            raise InputError(f"{path} has the step {name}, which no batch of CIFAR needs; it is not read.")
    raise InputError(f"{path} ends before its end; copy it again from its source.")


_VALUES: dict[str, Any] = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8"), Ellipsis,
    ),
}  # fmt: skip
"""Steps that put a value on the stack; ``...``: their own argument."""


def _known_global(wanted: str, path: Path) -> str:
    """The names that an array of NumPy needs, as text: nothing is imported."""
    if wanted in ARRAY_MAKERS:
        return "reconstruct"
    if wanted in ("numpy ndarray", "numpy dtype", "_codecs encode"):
        return wanted
    raise InputError(f"{path} asks for {wanted.replace(' ', '.')}, which no batch of CIFAR needs; it is not read.")


def _call(function: Any, arguments: Any, path: Path) -> Any:
    """The three calls that such a file makes."""
    if function == "reconstruct" and isinstance(arguments, tuple):
        return _Array()
    if function == "numpy dtype" and arguments and _text(arguments[0]) in ("u1", "|u1", "uint8"):
        return np.dtype(np.uint8)
    if function == "_codecs encode" and isinstance(arguments, tuple) and isinstance(arguments[0], str):
        return arguments[0].encode("latin1")
    raise InputError(f"{path} calls {function!s} in a way that no batch of CIFAR does; it is not read.")


def _build(thing: Any, state: Any, path: Path) -> None:
    """Give an array its numbers; a type's own state changes nothing for bytes."""
    if isinstance(thing, np.dtype):
        return
    if not isinstance(thing, _Array) or not isinstance(state, tuple) or len(state) != 5:
        raise InputError(f"{path} holds something that is no array; it is not read.")
    _, shape, kind, fortran, raw = state
    if not isinstance(kind, np.dtype) or not isinstance(raw, bytes | str):
        raise InputError(f"{path} holds an array of another kind than bytes; it is not read.")
    content = raw.encode("latin1") if isinstance(raw, str) else raw
    flat = np.frombuffer(content, dtype=np.uint8)
    thing.value = flat.reshape([int(size) for size in shape], order="F" if fortran else "C")


def _finished(value: Any) -> Any:
    """An array that has its numbers, as an array."""
    return value.value if isinstance(value, _Array) else value


def _to_mark(stack: list[Any]) -> list[Any]:
    """Take everything above the last mark."""
    place = len(stack) - 1 - next(index for index, value in enumerate(reversed(stack)) if value is _MARK)
    parts = stack[place + 1 :]
    del stack[place:]
    return [_finished(part) for part in parts]


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
