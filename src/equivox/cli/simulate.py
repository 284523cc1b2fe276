"""``equivox simulate``: data with known truth, one file per command.

Every command is registered by its import path, so that a ``--help`` loads only what it shows: add a line below.
"""

from __future__ import annotations

from cyclopts import App

app = App(
    name="simulate",
    help="Make data whose truth is known: scans, motion, atrophy, particles, micrographs.",
    help_format="plaintext",
)
app.command(
    "equivox.cli.simulate_head:head",
    name="head",
    help=(
        "Simulate echo-planar stacks of fetal heads, with poses and masks, for equivox pose train.\n\n"
        "Writes training/ and validation/ (img, lab), annotations.csv, poses.csv, parameters.csv, parameters/, "
        "README.md and run.json. The same seed gives the same stacks, with any number of workers.\n\n"
        "For example:\n\nequivox simulate head --out heads --count 200 --workers 4\n\n"
        "equivox simulate head --out still --count 20 --no-motion --seed 7 --json"
    ),
)
app.command(
    "equivox.cli.simulate_motion:motion",
    name="motion",
    help=(
        "Steer slices through a moving head by navigators, and see what of the head they cover.\n\n"
        "Before every slice a coarse navigator is taken; the pose found in it says where the slice shall lie a moment "
        "later. Compared are the true pose, the model, the landmark rule, and no correction. Writes trajectory.csv, "
        "slices.csv, coverage.csv, slices/, coverage/ (maps on the scan's grid), report.html and run.json.\n\n"
        "For example:\n\nequivox simulate motion scan.nii.gz labels.nii.gz --pose poses.csv --out motion\n\n"
        "equivox simulate motion scan.nii.gz labels.nii.gz --pose pose.json --methods truth blind --out quick --seed 3"
    ),
)
