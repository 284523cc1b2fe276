"""Networks of a model folder as files that run without equivox: ONNX, or a program of ``torch.export``.

A network is folded first (:func:`equivox.nn.fold`), written with free batch and, where it allows it, free sides, read
back, run, and compared with the network itself on two shapes; only then does the file appear.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from equivox.errors import ConfigError, MissingExtraError, OutputError, did_you_mean
from equivox.formats.atomic import atomic_path
from equivox.geometry.irreps import Irreps
from equivox.nn import fold
from equivox.weights.folder import ModelFolder

ExportFormat = Literal["onnx", "torch"]
TOLERANCE = 1e-4
"""Largest relative difference from the network itself; float32 in another order of sums stays far below."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True, slots=True)
class ExportedNetwork:
    """What was written.

    Parameters
    ----------
    path, format
        The file and its kind.
    network, architecture
        Name in the model folder, and what it is.
    inputs
        Shape of every input; a free axis is a name.
    difference
        Largest difference from the network, relative to its largest output, over the shapes of :attr:`checked`.
    checked
        Shapes of the first input that were run.
    """

    path: Path
    format: ExportFormat
    network: str
    architecture: str
    inputs: tuple[tuple[int | str, ...], ...]
    difference: float
    checked: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Probe:
    """Shapes to trace and to check with, which axes are free, and whether several tensors come out."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    copies: int
    free: tuple[int, ...]
    several: bool = False


def export_network(
    folder: ModelFolder, out: Path, *, format: ExportFormat, network: str | None = None, overwrite: bool = False
) -> ExportedNetwork:
    """Write one network of a model folder.

    Parameters
    ----------
    folder
        The model.
    out
        File to write: by custom ``.onnx``, or ``.pt2`` for ``torch.export.load``.
    format
        ``"onnx"`` or ``"torch"``.
    network
        Its name in the folder; may be left out where there is one only.
    overwrite
        Replace a file that is there.

    Raises
    ------
    ConfigError
        If the network is not named and there are several, is unknown, or cannot be written in this format.
    MissingExtraError
        If the packages for ONNX are not installed.
    OutputError
        If the file is there, or cannot be written.
    """
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already; pass --overwrite to replace it, or choose another file.")
    if format == "onnx":
        for package in ONNX_PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MissingExtraError(package, "export", "Writing ONNX files")
    name = _choose(folder, network)
    fields = folder.config["networks"][name]
    module = folder.networks()[name]
    probe = _probe(str(fields["architecture"]), fields, module)
    example = _inputs(probe, probe.shapes[0])
    try:
        with _quiet():
            free = dict.fromkeys(probe.free, torch.export.Dim.AUTO)
            whole = _Code(fold(module)) if probe.several else fold(module)
            program = torch.export.export(whole, example, dynamic_shapes=(free,) * probe.copies)
            onnx = torch.onnx.export(program, (), dynamo=True, verbose=False) if format == "onnx" else None
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"network {name!r} of {folder.path} ({fields['architecture']}) cannot be written as {format}: {reason}"
        ) from error
    with atomic_path(out) as temporary, _quiet():
        if onnx is not None:
            onnx.save(str(temporary), external_data=False)
        else:
            torch.export.save(program, temporary)
        difference = max(_difference(temporary, format, module, _inputs(probe, shape)) for shape in probe.shapes)
        if not difference <= TOLERANCE:
            raise ConfigError(
                f"network {name!r} of {folder.path} gives numbers that differ by {difference:.1e} once written as "
                f"{format} (limit {TOLERANCE:.0e}): nothing was written; try the other format and report this."
            )
    return ExportedNetwork(
        path=out,
        format=format,
        network=name,
        architecture=str(fields["architecture"]),
        inputs=(_described(program, probe),) * probe.copies,
        difference=difference,
        checked=probe.shapes,
    )


def _choose(folder: ModelFolder, network: str | None) -> str:
    """The network asked for, or the only one."""
    known = list(folder.config["networks"])
    if network is None and len(known) == 1:
        return str(known[0])
    if network is None:
        raise ConfigError(f"{folder.path} holds the networks {', '.join(known)}; choose one with --network.")
    if network not in known:
        hint = did_you_mean(network, known)
        raise ConfigError(f"{folder.path} has no network named {network!r}{hint}; known are {', '.join(known)}.")
    return network


def _probe(architecture: str, fields: dict[str, Any], module: nn.Module) -> _Probe:
    """Two shapes that a network takes, as small as may be."""
    parameter = inspect.signature(type(module)).parameters.get("channels_in")
    default = 1 if parameter is None else parameter.default
    channels = int(getattr(module, "channels_in", fields.get("channels_in", default)))
    if architecture == "equivariant_unet":
        channels = Irreps(module.irreps_in).dimension
    if architecture.startswith("projected"):
        side = int(getattr(module, "receptive_field_px", 45))
        return _Probe(((2, channels, side, side), (3, channels, side, side)), 1, (0,))
    divisor = int(getattr(module, "divisor", 1))
    spatial = (0, 2, 3, 4)
    if architecture in ("unet", "finder"):
        side = 2 * divisor
        shapes = ((2, channels, side, side, side), (1, channels, side + divisor, side, side))
        return _Probe(shapes, _arity(module), spatial)
    if architecture == "pose_net":
        side = 2 * 2 ** int(fields.get("poolings", 4))
        return _Probe(((2, 1, side, side, side), (1, 1, side + side // 2, side, side)), 1, spatial)
    if architecture == "brain_encoder":
        side = int(fields.get("side", 64))
        return _Probe(((2, 1, side, side, side), (1, 1, side, side, side)), 2, (0,), several=True)
    if architecture == "head_pose":
        side = int(fields.get("side", 32))
        return _Probe(((2, channels, side, side, side), (3, channels, side, side, side)), 1, (0,))
    small = 1 + divisor * max(-(-12 // divisor), 1)
    large = small + max(divisor, 4)
    return _Probe(((2, channels, small, small, small), (1, channels, large, large, large)), 1, spatial)


def _arity(module: nn.Module) -> int:
    """How many volumes of the same shape a network takes."""
    return 2 if type(module).__name__ == "FinderNet" else 1


def _inputs(probe: _Probe, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Noise in [0, 1)."""
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.rand(shape, generator=draw) for _ in range(probe.copies))


def _described(program: torch.export.ExportedProgram, probe: _Probe) -> tuple[int | str, ...]:
    """The first input's shape as the written program takes it: free axes by name, equal ones alike."""
    wanted = program.graph_signature.user_inputs[0]
    node = next(node for node in program.graph.nodes if node.name == wanted)
    names: dict[str, str] = {}
    shape: list[int | str] = []
    for axis, size in enumerate(node.meta["val"].shape):
        if isinstance(size, int):
            shape.append(size)
        else:
            shape.append(names.setdefault(str(size), "batch" if axis == 0 else "xyz"[axis - 2]))
    return tuple(shape)


def _difference(path: Path, format: ExportFormat, module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Of the written file from the network, relative to the largest output."""
    with torch.no_grad():
        expected = _parts(module(*inputs))
        if format == "torch":
            results = _parts(torch.export.load(path).module()(*inputs))
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            names = [entry.name for entry in session.get_inputs()]
            feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            results = [torch.from_numpy(array) for array in session.run(None, feed)]
    if [result.shape for result in results] != [part.shape for part in expected]:
        return float("inf")
    return max(
        float((result - part).abs().max() / part.abs().max().clamp_min(1e-30))
        for result, part in zip(results, expected, strict=True)
    )


class _Code(nn.Module):
    """A brain encoder whose code comes as a plain tuple, which every format knows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Polar, axial, scalars, pseudo-scalars."""
        return tuple(self.network(volume, mask))


def _parts(found: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """One or several outputs as a list."""
    return [found] if isinstance(found, Tensor) else list(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what exporters say about their own deprecations and about packages that nobody asked for."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx._internal.exporter._registration", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
