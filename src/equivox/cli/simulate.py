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
