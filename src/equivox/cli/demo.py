"""``equivox demo``: the shipped model on the shipped scans, compared with their landmarks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cyclopts import Parameter

from equivox.cli.options import Output
from equivox.cli.speaking import print_document

_FLAG = Parameter(negative="")
SEEN = "The shipped model has seen these stacks in training: the errors above say nothing about new scans."


def demo(*, out: Path = Path("equivox-demo"), output: Output | None = None) -> int:
    """Find the head in two real fetal scans that come with the package.

    Predicts, compares with the landmarks, and writes a page with pictures. Needs no network.

    For example:

    equivox demo --out build/demo --overwrite

    equivox demo --out build/demo --json

    Parameters
    ----------
    out
        Output folder.
    output
        How the command speaks.
    """
    from equivox.cli.pose import print_outcome
    from equivox.run.batch import RunChoice
    from equivox.run.evaluation_files import PAGE_NAME
    from equivox.samples import fetal_epi_folder
    from equivox.tasks.pose.config import EvaluateConfig, PredictConfig
    from equivox.tasks.pose.evaluate import evaluate_poses, write_evaluation
    from equivox.tasks.pose.evaluate_page import flip_lines, render_evaluation
    from equivox.tasks.pose.heldout import demo_rows, demo_table
    from equivox.tasks.pose.predict import REPORT, predict_poses
    from equivox.weights.folder import find_model

    speak = output or Output()
    started = time.perf_counter()
    samples = fetal_epi_folder()
    config = PredictConfig(write_mask=True, write_aligned=True)
    model = find_model(config.model)
    if not speak.quiet:
        print(f"Two fetal EPI stacks of {samples}, model {model.name} of {model.path}", file=sys.stderr, flush=True)
    finished = predict_poses(
        [samples], out, config, RunChoice(overwrite=speak.overwrite), command=sys.argv,
        progress=None if speak.quiet else print_outcome,
    )  # fmt: skip
    evaluation = evaluate_poses(EvaluateConfig(predicted=out, truth=samples / "poses.csv"))
    write_evaluation(evaluation, out, page=render_evaluation(evaluation), overwrite=True)
    rows = demo_rows(evaluation, model.path)
    seconds = time.perf_counter() - started
    if speak.json:
        document = {
            "schema": "equivox.demo/1",
            "note": SEEN,
            "seconds": round(seconds, 1),
            "page": str(out / REPORT),
            "stacks": [row.as_dict() for row in rows],
            "run": finished.as_dict(),
        }
        print_document(document)
    else:
        print("\n".join([*demo_table(rows), *flip_lines(evaluation), SEEN]))
        print("held-out: the same stack, by a model that was trained without its fold.")
        print(f"page:       {out / REPORT}\nevaluation: {out / PAGE_NAME}\ntime:       {seconds:.0f} s")
    return finished.exit_code
