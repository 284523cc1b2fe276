"""``equivox pose template``: a head template of one's own scans."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from cyclopts import App

from equivox import __version__
from equivox.cli.options import Output
from equivox.cli.speaking import print_document, say, say_now_and_then


def register(app: App) -> None:
    """Add the command to the group ``pose``."""
    app.command(template)


def template(
    poses: Path,
    /,
    *,
    out: Path,
    join: str = "fetal-head-epi",
    scans: Path | None = None,
    output: Output | None = None,
) -> int:
    """Make a model for your own scanner from a few scans whose poses are known.

    The head template of a model is replaced by the mean of your scans; finder, network and settings stay. One subject
    is enough to begin with; in our data four were as good as nine. No training, about a second a scan.

    Predict first, look at the page, delete the rows of poses.csv that are wrong; then predict again with the new model
    (--model ./my-scanner).

    For example:

    equivox pose template poses/poses.csv --out my-scanner

    equivox pose template landmarks.csv --scans scans --out my-scanner --join fetal-head-epi

    Parameters
    ----------
    poses
        poses.csv of pose predict (rows that are ok count), or a table of landmarks with mask_volume_ml.
    out
        Model folder to write.
    join
        Name or folder of the model that everything else is taken from.
    scans
        Folder of the scans, if they do not lie where the table says.
    output
        How the command speaks.
    """
    from equivox.tasks.pose.adapt import adapt_template

    speak = output or Output()
    done = adapt_template(
        poses, out, join=join, scans=scans, overwrite=speak.overwrite,
        progress=None if speak.quiet or speak.json else say_now_and_then,
    )  # fmt: skip
    if speak.json:
        document = {"schema": "equivox.pose-template/1", "version": __version__, **done.as_dict()}
        print_document({**document, "warnings": list(done.left_out), "errors": []})
    if not speak.quiet:
        lines = [f"left out: {reason}" for reason in done.left_out]
        if done.errors_deg:
            lines.append(
                f"each scan by a template of the other subjects: median {median(done.errors_deg):.1f} degrees, "
                f"largest {max(done.errors_deg):.1f}"
            )
        lines += [f"template of {len(done.scans)} scans of {done.subjects} subjects", f"model: {done.model.path}"]
        say(lines)
    return 0
