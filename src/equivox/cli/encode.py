"""``equivox encode``: brain scans as vectors that turn with the head and numbers that do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from equivox.cli.encode_demo import demo
from equivox.cli.encode_measure import probe, robustness
from equivox.cli.encode_train import finetune, pretrain
from equivox.cli.options import Output, Run
from equivox.cli.speaking import close_run, lost_lines, model_line, say

if TYPE_CHECKING:
    from equivox.tasks.encode.embed import EmbedOutcome, EmbedRun

DEFAULT_MODEL = "brain-encoder-t1"
"""As in ``tasks/encode/config.py``, which lies in a room that loads torch."""
_FLAG = Parameter(negative="")

app = App(
    name="encode",
    help="Brain MRI as vectors that turn with the head and numbers that do not: embed, align, probe, robustness.",
    help_format="plaintext",
)
for _command in (probe, robustness, pretrain, finetune, demo):
    app.command(_command)


@app.command
def embed(
    inputs: list[str],
    /,
    *,
    out: Path,
    model: str = DEFAULT_MODEL,
    mask: str | None = None,
    brain_extracted: Annotated[bool, _FLAG] = False,
    images: Path | None = None,
    layout: Literal["auto", "bids", "adni", "oasis1", "oasis2", "oasis3", "ncanda", "csv"] = "auto",
    format: Literal["csv", "npz"] = "csv",
    verify: Annotated[bool, _FLAG] = False,
    verify_turns: int = 4,
    seed: int = 0,
    run: Run | None = None,
) -> int:
    """Encode brain scans: one row per scan, with vectors, invariants and a confidence.

    Takes brain-extracted T1-weighted scans of any voxel size, orientation and handedness; nothing is registered. Writes
    embeddings.csv (invariants s000..., polar vectors v00_x... in world RAS axes and v00_i... in voxel axes, axial ones
    a00_...) or embeddings.npz, run.json and, with --verify, verify.csv. For research; not a medical device.

    For example:

    equivox encode embed brain.nii.gz --out codes

    equivox encode embed bids --out codes --workers 4 --verify --json > codes.json

    Parameters
    ----------
    inputs
        NIfTI or MGH files, folders, globs in quotes, a BIDS root, an ADNI, OASIS or NCANDA folder, a CSV table.
    out
        Output folder.
    model
        Name or folder of an encoder.
    mask
        Brain mask, or a folder with one per scan (STEM_mask.nii.gz), on the scan's grid.
    brain_extracted
        You vouch that nothing but brain is left; what looks like a skull is then a warning.
    images
        Folder of the scans that a table names; by default the table's own.
    layout
        What a folder or table is, where that cannot be told.
    format
        File of the embeddings.
    verify
        Turn each input and print how far vectors (E) and invariants (I) are off; verify.csv has all numbers.
    verify_turns
        Random rotations of --verify.
    seed
        Seed of those rotations.
    run
        How the work is run.
    """
    from equivox.tasks.encode.config import EmbedConfig
    from equivox.tasks.encode.embed import embed_scans

    options = run or Run()
    config = EmbedConfig(
        model=model, mask=mask, brain_extracted=brain_extracted, format=format, verify=verify,
        verify_turns=verify_turns, layout=layout, images=None if images is None else str(images), seed=seed,
    )  # fmt: skip
    finished = embed_scans(
        inputs, out, config, options.choice(), command=sys.argv, progress=None if options.quiet else print_outcome
    )
    if verify and not options.json:
        print("\n".join(verify_lines(finished)))
    return close_run(options, finished, closing_lines)


@app.command
def align(
    fixed: Path,
    moving: Path,
    /,
    *,
    out: Path,
    model: str = DEFAULT_MODEL,
    fixed_mask: Path | None = None,
    moving_mask: Path | None = None,
    brain_extracted: Annotated[bool, _FLAG] = False,
    device: str = "auto",
    output: Output | None = None,
) -> int:
    """Find how two scans of a brain lie to each other, whatever their orientations.

    Writes alignment.json (4x4 fixed_from_moving in world RAS mm, with a confidence), the same transform for ITK,
    FreeSurfer and FSL, and alignment.png with both brains before and after.

    For example:

    equivox encode align first.nii.gz second.nii.gz --out aligned

    equivox encode align first.nii.gz second.nii.gz --out aligned --overwrite --json

    Parameters
    ----------
    fixed
        The scan that stays.
    moving
        The scan that is brought onto it.
    out
        Output folder.
    model
        Name or folder of an encoder.
    fixed_mask
        Brain mask of the fixed scan.
    moving_mask
        Brain mask of the moving scan.
    brain_extracted
        You vouch that nothing but brain is left in both.
    device
        auto, cpu, cuda, cuda:N or mps.
    output
        How the command speaks.
    """
    from equivox.tasks.encode.align import JSON_NAME, PICTURE, AlignConfig, align_scans

    speak = output or Output()
    config = AlignConfig(
        model, None if fixed_mask is None else str(fixed_mask), None if moving_mask is None else str(moving_mask),
        brain_extracted,
    )  # fmt: skip
    found = align_scans(fixed, moving, out, config, device=device, overwrite=speak.overwrite, command=sys.argv)
    if speak.json:
        print((out / JSON_NAME).read_text(encoding="utf-8"), end="")
    else:
        x, y, z = found.fixed_from_moving[:3, 3].tolist()
        print(f"turn {found.angle_deg:.2f} degrees, translation ({x:.1f}, {y:.1f}, {z:.1f}) mm")
        print(
            f"confidence {found.confidence:.2f}, agreement {found.agreement:.2f}, correlation {found.correlation:.2f}"
        )
    if not speak.quiet:
        lines = [f"note: {text}" for text in found.warnings]
        lines += [f"low confidence: {text}; look at the picture" for text in found.doubts]
        lines.append(f"picture: {out / PICTURE}")
        say(lines)
    return 0


def print_outcome(done: int, total: int, outcome: EmbedOutcome) -> None:
    """One line on stderr per finished input."""
    state = "kept" if outcome.resumed else outcome.row.status
    line = f"[{done}/{total}] {outcome.entry.path.name}  {state}"
    if outcome.result is not None:
        line += f"  confidence {outcome.result.embedding.confidence:.2f}  {outcome.result.seconds:.1f} s"
    say([line])


def verify_lines(finished: EmbedRun) -> list[str]:
    """E and I of every input that was verified, for a terminal."""
    lines = [
        f"{Path(name).name}: E {one.E:.4f}, I {one.I:.4f} over {one.turns} random turns (pose {one.pose_deg:.2f} "
        f"degrees, resampling floor {one.floor:.4f}); turns of the cube: E {one.E_cube:.1e}, I {one.I_cube:.1e}"
        for name, one in finished.verified
    ]
    if len(lines) > 1:
        count = len(finished.verified)
        mean_e, mean_i = (sum(getattr(one, name) for _, one in finished.verified) / count for name in ("E", "I"))
        lines.append(f"mean of {count}: E {mean_e:.4f}, I {mean_i:.4f}")
    return lines


def closing_lines(finished: EmbedRun) -> list[str]:
    """What was run, where the results are, what failed."""
    lines = [model_line(finished.model, finished.device)]
    lines += [f"note: {text}" for text in [*finished.notes, *finished.warnings][:20]]
    if finished.skipped:
        lines.append(f"skipped: {len(finished.skipped)}")
        lines += [f"  {who}: {why}" for who, why in finished.skipped[:20]]
    lines += lost_lines(finished.outcomes, "failed")
    lines.append(f"embeddings: {finished.table}")
    return lines
