"""The report page of `equivox pose predict`, from what is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from equivox.report.page import Failure, InputSection, Picture, PoseRow, as_data_uri, render_pose_page
from equivox.tasks.pose.predict import PoseOutcome, PredictRun

PANEL_WORDS = {"scan": "plane of the scanner through the head", "head": "plane of the head's own frame"}


def render_report(run: PredictRun) -> str:
    """HTML of ``report.html``: the pictures that the run's markers name are put into the page."""
    names = _short_names([outcome.entry.path for outcome in run.outcomes])
    rows = []
    sections = []
    failures = []
    for number, (outcome, name) in enumerate(zip(run.outcomes, names, strict=True), start=1):
        anchor = f"input-{number}"
        for row in outcome.rows():
            pose = row.world_from_head
            rows.append(
                PoseRow(
                    name=name,
                    anchor=anchor,
                    frame=row.frame,
                    status=row.status,
                    confidence=row.confidence,
                    euler_deg=None if pose is None else _three(pose.euler_xyz_deg()),
                    center_mm=None if pose is None else _three(pose.translation_mm),
                    mask_volume_ml=row.mask_volume_ml,
                    seconds=row.seconds,
                )
            )
            if pose is None:
                frame = f", frame {row.frame}" if len(outcome.rows()) > 1 else ""
                failures.append(Failure(f"{name}{frame}", row.reason))
        sections.append(_section(run, outcome, name, anchor))
    count = len(run.outcomes)
    return render_pose_page(
        subtitle=f"{count} input{'s' if count != 1 else ''}, model {run.model['name']}, device {run.device.device}",
        facts=(("model", f"{run.model['name']} ({run.model['sha256'][:8]})"), ("device", str(run.device.device))),
        rows=rows,
        inputs=sections,
        failures=failures,
    )


def _section(run: PredictRun, outcome: PoseOutcome, name: str, anchor: str) -> InputSection:
    rows = outcome.rows()
    posed = [row for row in rows if row.world_from_head is not None]
    shown = (posed or rows)[0]
    result = outcome.result
    pictures: dict[str, list[Picture]] = {"scan": [], "head": []}
    for kind, caption, file in () if result is None else result.pictures:
        uri = as_data_uri((run.out / file).read_bytes(), "image/webp")
        pictures[kind].append(Picture(uri, caption, f"{caption} {PANEL_WORDS[kind]}"))
    part = f", frame {shown.frame}" if len(rows) > 1 else ""
    reason = shown.reason
    if len(rows) > 1:
        reason = f"{len(posed)} of {len(rows)} frames have a pose." + (f" {shown.reason}" if shown.reason else "")
    return InputSection(
        name=name,
        anchor=anchor,
        status=shown.status,
        reason=reason,
        confidence=shown.confidence if posed else None,
        warnings=() if result is None else result.warnings,
        scan_title=("In the scanner" if posed else "The scan, where no head was found") + part,
        scan_pictures=tuple(pictures["scan"]),
        head_title=f"Turned upright by the pose{part}",
        head_pictures=tuple(pictures["head"]),
        chart=_movement(run, outcome) if len(posed) > 1 else None,
        links=_links(outcome),
    )


def _movement(run: PredictRun, outcome: PoseOutcome) -> str | None:
    """Chart of the series' motion table; None where there is none."""
    name = f"{outcome.entry.stem}_motion.json"
    if outcome.result is None or name not in outcome.result.files:
        return None
    from equivox.report.motion_chart import motion_chart

    motion = json.loads((run.out / name).read_text(encoding="utf-8"))
    chart = motion_chart(
        motion["frames"], before_smoothing=motion.get("before_smoothing"), reference=motion["reference"]
    )
    return as_data_uri(chart, "image/svg+xml")


def _links(outcome: PoseOutcome) -> tuple[tuple[str, str], ...]:
    """Files of the input, relative to the page; a long series' transforms are left to the folder."""
    if outcome.result is None:
        return ()
    words = {
        "_pose.npy": "4×4 matrix",
        "_mask.nii.gz": "mask",
        "_aligned.nii.gz": "aligned volume",
        "_motion.csv": "motion, frame by frame",
        "_motion.json": "motion as JSON",
    }
    links: list[tuple[str, str]] = []
    for name in outcome.result.files:
        if name.startswith("viewer/"):
            links.insert(0, ("open the interactive viewer", name))
        elif not name.startswith("pictures/"):
            transform = f"transform (.{name.rsplit('.', 1)[-1]})"
            label = next((word for ending, word in words.items() if name.endswith(ending)), transform)
            links.append((label, name))
    return tuple(links[:6])


def _short_names(paths: list[Path]) -> list[str]:
    """File names, or whole paths where two names are equal."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else path.as_posix() for path in paths]


def _three(values: torch.Tensor) -> tuple[float, float, float]:
    x, y, z = values.double().tolist()
    return x, y, z
