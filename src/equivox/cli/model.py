"""``equivox model``: list, inspect, verify, import and export model folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from equivox.cli.speaking import print_results

EXIT_MODEL = 4
_FLAG = Parameter(negative="")
_LIST = Parameter(consume_multiple=True, negative="")

app = App(
    name="model",
    help="List, inspect, verify, import and export model folders.\n\n"
    "A model folder holds config.json, model.safetensors, a card (README.md), certificate.json and LICENSE; no code. "
    "Names are looked up in EQUIVOX_HOME (default ~/.local/share/equivox/models) and among the shipped models.",
    help_format="plaintext",
)


@app.command(name="list")
def list_(*, json: Annotated[bool, _FLAG] = False) -> int:
    """List every model that a name finds.

    For example:

    equivox model list

    equivox model list --json

    Parameters
    ----------
    json
        Print one JSON document on stdout.
    """
    from equivox.errors import ModelFolderError
    from equivox.weights.folder import list_models, model_homes

    rows, broken = [], []
    for path, model in list_models():
        if isinstance(model, ModelFolderError):
            broken.append({"code": model.code, "message": str(model)})
            continue
        megabytes = round((path / "model.safetensors").stat().st_size / 1e6, 2) if _has_weights(path) else None
        rows.append(
            {
                "name": path.name,
                "task": model.config["task"],
                "behaviour": model.config["behaviour"],
                "megabytes": megabytes,
                "path": str(path),
            }
        )
    if json:
        print_results("equivox.model-list/1", rows, errors=broken)
    else:
        for row in rows:
            print(f"{row['name']:24} {row['task']:8} {row['behaviour']:10} {row['megabytes']} MB  {row['path']}")
        if not rows:
            print(f"No model in {' or '.join(str(home) for home in model_homes())}.", file=sys.stderr)
        for entry in broken:
            print(f"broken: {entry['message']}", file=sys.stderr)
    return EXIT_MODEL if broken else 0


@app.command
def info(model: str, /, *, json: Annotated[bool, _FLAG] = False) -> None:
    """Show what a model is: networks, input, settings, where it came from.

    For example:

    equivox model info fetal-head-epi

    equivox model info ./my-model --json

    Parameters
    ----------
    model
        Name, or path of a folder (a path has a separator: ./my-model).
    json
        Print one JSON document on stdout.
    """
    from equivox.weights.folder import find_model

    folder = find_model(model)
    if json:
        result = {"path": str(folder.path), "sha256": folder.sha256, "config": folder.config}
        print_results("equivox.model-info/1", [{**result, "certificate": folder.certificate()}])
        return
    print(f"{folder.name}  ({folder.path})")
    print(f"sha256     {folder.sha256}")
    for key in ("task", "behaviour", "license"):
        print(f"{key:10} {folder.config.get(key, 'not said')}")
    for name, fields in folder.config["networks"].items():
        sizes = ", ".join(f"{key} {value}" for key, value in fields.items() if key != "architecture")
        print(f"network    {name}: {fields.get('architecture')} ({sizes})")
    for table in ("input", "output", "settings", "provenance"):
        for key, value in folder.config.get(table, {}).items():
            print(f"{table:10} {key}: {value}")


@app.command
def verify(*models: str, json: Annotated[bool, _FLAG] = False) -> int:
    """Check digests, shapes, finite weights, card, certificate, licence, and that nothing in the folder can run.

    Exit code 4 if a check fails.

    For example:

    equivox model verify fetal-head-epi

    equivox model verify ./first ./second --json

    Parameters
    ----------
    models
        Names, or paths of folders (a path has a separator: ./my-model).
    json
        Print one JSON document on stdout.
    """
    from dataclasses import asdict

    from equivox.errors import ConfigError
    from equivox.weights.folder import locate_model
    from equivox.weights.verify import verify_model

    if not models:
        raise ConfigError("equivox model verify needs the name or folder of a model; equivox model list shows them.")
    results = {model: verify_model(locate_model(model)) for model in models}
    failed = [(model, check) for model, checks in results.items() for check in checks if not check.ok]
    if json:
        rows = [{"model": model, "checks": [asdict(check) for check in checks]} for model, checks in results.items()]
        errors = [{"code": "EQV-MODEL", "message": f"{model}: {check.message}"} for model, check in failed]
        print_results("equivox.model-verify/1", rows, errors=errors)
    else:
        for model, checks in results.items():
            print(model)
            for check in checks:
                print(f"  {'ok    ' if check.ok else 'FAILED'} {check.name:16} {check.message}")
    return EXIT_MODEL if failed else 0


@app.command(name="import")
def import_(
    unet: Path,
    e3cnn: Path,
    /,
    *,
    out: Path,
    name: str = "",
    behaviour: Literal["mended", "published"] = "mended",
    activation: Literal["elu", "relu"] = "elu",
    voxel_size_mm: float = 3.0,
    segment_size: int = 128,
    rotate_size: int = 64,
    thresholds: Annotated[tuple[float, ...], _LIST] = (),
    overwrite: Annotated[bool, _FLAG] = False,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Make a model folder of the two checkpoints of E(3)-Pose: the U-Net's .ckpt and the E(3)-CNN's .pth.

    Sizes are read off the tensors. Checkpoints with anything but tensors and plain values are refused: nothing of a
    stranger is run.

    For example:

    equivox model import unet.ckpt e3cnn.pth --out my-model

    equivox model import unet.ckpt e3cnn.pth --out my-model --behaviour published --activation relu

    Parameters
    ----------
    unet
        Checkpoint of the segmentation U-Net (Lightning .ckpt).
    e3cnn
        Checkpoint of the E(3)-CNN (.pth).
    out
        Folder to write. In EQUIVOX_HOME its name finds it.
    name
        Name in its configuration; by default the folder's.
    behaviour
        mended: run with our corrections; published: frames, crops and pooling of the original.
    activation
        The U-Net's activation, which no shape shows.
    voxel_size_mm
        Working voxel size [mm].
    segment_size
        Side of the U-Net's input [voxels].
    rotate_size
        Longest side of the E(3)-CNN's input [voxels].
    thresholds
        Least probability per class; by default 0.9 0.8, then -1 for each further class.
    overwrite
        Replace a model folder that is there.
    json
        Print one JSON document on stdout.
    """
    from equivox.weights.importing import ImportSettings, import_published

    settings = ImportSettings(
        name=name,
        behaviour=behaviour,
        activation=activation,
        voxel_size_mm=voxel_size_mm,
        segment_size=segment_size,
        rotate_size=rotate_size,
        thresholds=thresholds,
    )
    folder = import_published(unet, e3cnn, out, settings=settings, overwrite=overwrite)
    if json:
        result = {"name": folder.name, "path": str(folder.path), "sha256": folder.sha256, "config": folder.config}
        print_results("equivox.model-import/1", [result])
        return
    print(f"Wrote {folder.path}. Look at it with: equivox model info {_as_path(folder.path)}", file=sys.stderr)


@app.command
def export(
    model: str,
    /,
    *,
    out: Path,
    format: Literal["onnx", "torch"] = "onnx",
    network: str | None = None,
    overwrite: Annotated[bool, _FLAG] = False,
    json: Annotated[bool, _FLAG] = False,
) -> None:
    """Write a network of a model as a file that runs without equivox: ONNX, or a program of torch.export.

    Kernels are made, norms folded away. The batch, and the sides where the network allows it, stay free. The file is
    read back and compared with the network on two shapes before it appears.

    For example:

    equivox model export fetal-head-epi --network rotate --format onnx --out rotate.onnx

    equivox model export ./my-model --format torch --out network.pt2

    Parameters
    ----------
    model
        Name, or path of a folder (a path has a separator: ./my-model).
    out
        File to write.
    format
        onnx (needs the extra export), or torch (read it with torch.export.load).
    network
        Which network, where the model holds several; equivox model info lists them.
    overwrite
        Replace a file that is there.
    json
        Print one JSON document on stdout.
    """
    from dataclasses import asdict

    from equivox.weights.exporting import export_network
    from equivox.weights.folder import find_model

    written = export_network(find_model(model), out, format=format, network=network, overwrite=overwrite)
    if json:
        print_results("equivox.model-export/1", [{**asdict(written), "path": str(written.path)}])
        return
    shapes = " and ".join("(" + ", ".join(str(side) for side in shape) + ")" for shape in written.inputs)
    print(
        f"Wrote {written.path}: {written.network} ({written.architecture}), input {shapes}, float32; "
        f"differs from the network by {written.difference:.0e} at most.",
        file=sys.stderr,
    )


def _has_weights(path: Path) -> bool:
    return (path / "model.safetensors").is_file()


def _as_path(path: Path) -> str:
    """The path as an argument that is not taken for a name."""
    return str(path) if "/" in str(path) else f"./{path}"
