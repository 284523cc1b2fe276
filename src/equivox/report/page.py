"""Pages that open from disk: one file, everything inside, no network (a content-security policy forbids it)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

import equivox

STATUS_WORDS = {
    "ok": "ok",
    "low_confidence": "of low confidence: look before use",
    "no_object": "without a head found",
    "failed": "failed",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """An image inside the page: a ``data:`` address, words under it and words in its place."""

    uri: str
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class PoseRow:
    """One line of the table: a scan or one frame of a series."""

    name: str
    anchor: str
    frame: int
    status: str
    confidence: float
    euler_deg: tuple[float, float, float] | None
    center_mm: tuple[float, float, float] | None
    mask_volume_ml: float
    seconds: float


@dataclass(frozen=True, slots=True)
class InputSection:
    """One scan's part of the page."""

    name: str
    anchor: str
    status: str
    reason: str
    confidence: float | None
    warnings: tuple[str, ...] = ()
    scan_title: str = "In the scanner"
    scan_pictures: tuple[Picture, ...] = ()
    head_title: str = "Turned upright by the pose"
    head_pictures: tuple[Picture, ...] = ()
    chart: str | None = None
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """What has no pose, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class TableRow:
    """Cells as text; ``mark`` is a class of the style sheet (``bad`` is red, ``soft`` grey)."""

    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the evaluation page."""

    title: str
    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    note: str = ""
    text_columns: tuple[int, ...] = (0,)
    long_columns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A curve or a scatter, as an SVG inside the page."""

    title: str
    uri: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class EvaluationPage:
    """Everything on the evaluation page."""

    subtitle: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...] = ()
    warnings: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = field(default=())
    unmatched_title: str = "Not matched"
    title: str = "How far the poses are from the truth"
    notice: str = "Landmarks have an error of their own: about 4 degrees and 5 mm in fetal EPI stacks."


def render_pose_page(
    *,
    subtitle: str,
    facts: Sequence[tuple[str, str]],
    rows: Sequence[PoseRow],
    inputs: Sequence[InputSection],
    failures: Sequence[Failure],
    warnings: Sequence[str] = (),
) -> str:
    """HTML of the report of `equivox pose predict`."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    return (
        _environment()
        .get_template("pose.html")
        .render(
            title="Where the heads lie",
            notice="A pose may be wrong or flipped where the status is ok: look at the pictures before you use it.",
            version=equivox.__version__,
            subtitle=subtitle,
            facts=facts,
            rows=rows,
            inputs=inputs,
            failures=failures,
            warnings=warnings,
            counts=counts,
            status_words=STATUS_WORDS,
        )
    )


def render_evaluation_page(page: EvaluationPage) -> str:
    """HTML of the report of an evaluation."""
    return (
        _environment()
        .get_template("evaluation.html")
        .render(
            title=page.title,
            notice=page.notice,
            version=equivox.__version__,
            subtitle=page.subtitle,
            facts=page.facts,
            tables=page.tables,
            charts=page.charts,
            warnings=page.warnings,
            unmatched=page.unmatched,
            unmatched_title=page.unmatched_title,
        )
    )


def as_data_uri(content: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address; ``kind`` is the media type, for example ``"image/webp"``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("equivox.report", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
