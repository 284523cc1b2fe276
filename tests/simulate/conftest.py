from __future__ import annotations

import pytest

from equivox.formats.fetal_templates import read_templates
from equivox.simulate.templates import HeadTemplates, prepare_templates


@pytest.fixture(scope="session")
def templates() -> HeadTemplates:
    """Two of the package's atlases and its median EPI head."""
    files = read_templates(youngest_weeks=33.0)
    return prepare_templates(files.atlases, files.epi)
