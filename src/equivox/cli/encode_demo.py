"""``equivox encode demo``: the shipped encoder on the shipped brains, and on one of them turned by a known rotation."""

from __future__ import annotations

import sys
from pathlib import Path

from equivox.cli.options import Output
from equivox.cli.speaking import print_document, say


def demo(
    *,
    out: Path = Path("equivox-encode-demo"),
    model: str | None = None,
    template: bool = True,
    output: Output | None = None,
) -> int:
    """Encode two real brains and the MNI152 template, and find a rotation that is known.

    Two brains of IXI come with the package (CC BY-SA 3.0), the template with nilearn. Needs no network. Each is turned
    to verify the encoder; then one is resampled in another orientation and aligned with itself.

    For example:

    equivox encode demo --out build/encode-demo

    equivox encode demo --out build/encode-demo --overwrite --json

    Parameters
    ----------
    out
        Output folder: codes/, aligned/, turned.nii.gz.
    model
        Name or folder of an encoder; the shipped one by default.
    template
        Encode the MNI152 template too.
    output
        How the command speaks.
    """
    from equivox.cli.encode import print_outcome, verify_lines
    from equivox.tasks.encode.config import DEFAULT_MODEL
    from equivox.tasks.encode.demo import run_demo

    speak = output or Output()
    found = run_demo(
        out, model or DEFAULT_MODEL, with_template=template, overwrite=speak.overwrite, command=sys.argv,
        progress=None if speak.quiet else print_outcome,
    )  # fmt: skip
    if speak.json:
        print_document(found.as_dict())
    else:
        print("\n".join(verify_lines(found.embedded)))
        print(
            f"{found.name} turned by {found.true_angle_deg:.2f} degrees: found {found.alignment.angle_deg:.2f} "
            f"degrees, off by {found.error_deg:.2f} degrees and {found.error_mm:.2f} mm at the brain's centre"
        )
    if not speak.quiet:
        lines = [f"note: {text}" for text in found.notes]
        lines += [f"embeddings: {found.embedded.table}", f"picture: {out / 'aligned' / 'alignment.png'}"]
        say(lines)
    return found.embedded.exit_code
