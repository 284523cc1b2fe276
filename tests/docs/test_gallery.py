"""Every example of the gallery runs, in order, page by page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
GALLERY = DOCS / "gallery"
PAGES = sorted(GALLERY.glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_gallery_is_linked_from_the_front_page() -> None:
    front = (GALLERY.parent / "index.md").read_text(encoding="utf-8")
    assert len(PAGES) >= 4
    assert all(f"gallery/{page.stem}" in front for page in PAGES)


@pytest.mark.parametrize("page", [*PAGES, DOCS / "howto" / "export.md"], ids=lambda page: page.stem)
def test_the_examples_of_a_page_run(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks:
        line = text[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


def test_build_your_own_keeps_its_promise() -> None:
    first = BLOCK.search((GALLERY / "build_your_own.md").read_text(encoding="utf-8"))
    assert first is not None
    assert len([line for line in first[1].splitlines() if line.strip()]) <= 30
