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
app.command(
    "equivox.cli.simulate_particles:particles",
    name="particles",
    help=(
        "Simulate images of single particles with known poses, as an extraction from micrographs gives them.\n\n"
        "Writes particles/*.mrcs, particles.star (poses, origins, CTF, half sets; names relative to the output folder) "
        "and run.json. The same seed gives the same images, with any number of workers.\n\n"
        "For example:\n\n"
        "equivox simulate particles 1igy --out sim --count 2000 --box-px 64 --pixel-size-angstrom 4 --snr 0.1\n\n"
        "equivox simulate particles model.cif --out sim --assembly 1 --orientations measured --workers 4"
    ),
)
app.command(
    "equivox.cli.simulate_micrographs:micrographs",
    name="micrographs",
    help=(
        "Simulate micrographs with known particles among decoys, broken particles, dirt, carbon and gold.\n\n"
        "Writes micrographs/*.mrc, micrographs.star, particles.star (coordinates, poses, CTF), coordinates.txt and "
        "decoys.txt (topaz) and run.json; names are relative to the output folder. Particles are dark, as recorded.\n\n"
        "For example:\n\nequivox simulate micrographs 1oel --out sim --count 20 --snr 0.3\n\n"
        "equivox simulate micrographs model.pdb --out full --size-px 4096 4096 --pixel-size-angstrom 1 --workers 4"
    ),
)
app.command(
    "equivox.cli.simulate_atrophy:atrophy",
    name="atrophy",
    help=(
        "Make brains with SYNTHETIC atrophy: wider ventricles, smaller hippocampi and cortex, in known degrees.\n\n"
        "Needs brain-extracted scans and your own label maps of them (none ships). Severities 0 to 4 are balanced, one "
        "for each subject. Writes NAME_severityK_synthetic.nii.gz, atrophy.csv, controls.json, README.md and run.json. "
        "Synthetic data say nothing about a disease.\n\n"
        "For example:\n\nequivox simulate atrophy brains --labels segmentations --out atrophy --severities 0 2\n\n"
        "equivox simulate atrophy people.csv --labels aseg --scheme freesurfer --out atrophy --untouched --workers 4"
    ),
)
