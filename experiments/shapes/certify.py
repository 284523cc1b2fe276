"""How little the logits of a trained classifier move when its object turns: exact turns, generic angles, a control.

``build_models.py`` writes the result into the model folders as ``certificate.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import equivox
from equivox.geometry.rotations import cube_group, rotation_from_vector
from equivox.nets.shape_net import PlainShapeNet, ShapeNet, settle_norms
from equivox.testing import rotate_field

ANGLES_DEG = (5, 10, 20, 30, 45, 60, 90, 120, 150, 180)
AXES = 3
CONTROL_FAILS = 0.5
"""A network that moves its logits by half of their spread over objects is not invariant; as for the head model."""
TOLERANCE = 1e-3


def certificate(
    network: ShapeNet, options: dict[str, Any], render: Callable[[Tensor], Tensor], what: str, floor: dict[str, float]
) -> dict[str, Any]:
    """Relative change of the logits: rms over objects and classes, over their standard deviation over objects.

    Parameters
    ----------
    network, options
        The classifier and the options it was made with; a plain one of the same options is the control.
    render
        From one rotation to the fields of all objects, turned by it.
    what
        What the objects are.
    floor
        By angle, the change of the input that a resampling of this kind brings by itself.
    """
    still = render(torch.eye(3, dtype=torch.float64))
    control = PlainShapeNet(**options, generator=torch.Generator().manual_seed(0))
    settle_norms(control, [still])
    network.eval()
    draw = torch.Generator().manual_seed(0)
    axes = nn.functional.normalize(torch.randn(AXES, 3, generator=draw, dtype=torch.float64), dim=1)
    with torch.no_grad():
        before = {"network": network(still), "control": control(still)}
        exact = [
            change(network(rotate_field(still[:8], f"{still.shape[1]}x0", turn)), before["network"][:8])
            for turn in cube_group()
        ]
        curves: dict[str, dict[str, float]] = {"network": {}, "control": {}}
        same = []
        for angle in ANGLES_DEG:
            found: dict[str, list[float]] = {"network": [], "control": []}
            for axis in axes:
                turned = render(rotation_from_vector(axis * torch.deg2rad(torch.tensor(float(angle)))))
                for name, module in (("network", network), ("control", control)):
                    after = module(turned)
                    found[name].append(change(after, before[name]))
                    if name == "network":
                        same.append((after.argmax(1) == before[name].argmax(1)).float().mean())
            for name, values in found.items():
                curves[name][str(angle)] = round(sum(v * v for v in values) ** 0.5 / len(values) ** 0.5, 6)
    return {
        "equivox_version": equivox.__version__,
        "network": "classify",
        "what": "rms change of the logits under rotation, over their standard deviation over objects",
        "cube_group": {
            "input": f"8 of {what}; the grid itself turned by all 24 rotations of the cube, float32",
            "largest_relative_change": max(exact),
            "tolerance": TOLERANCE,
            "holds": max(exact) <= TOLERANCE,
        },
        "generic_angles": {
            "input": f"{len(still)} of {what}; {AXES} random axes",
            "relative_change_by_angle_deg": curves["network"],
            "same_answer": round(float(torch.stack(same).mean()), 4),
            "input_floor_by_angle_deg": floor,
            "plain_network_by_angle_deg": curves["control"],
            "plain_network": "PlainShapeNet of the same options, random weights, running statistics of these objects",
            "control_fails": curves["control"]["90"] > CONTROL_FAILS,
        },
    }


def change(after: Tensor, before: Tensor) -> float:
    """Rms change over objects and classes, over the standard deviation over objects."""
    return float((after - before).square().mean().sqrt() / before.std(0).square().mean().sqrt())
