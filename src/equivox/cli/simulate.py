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
