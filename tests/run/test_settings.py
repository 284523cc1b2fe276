"""What settings of every task ask of their values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from equivox.errors import ConfigError
from equivox.run.settings import (
    as_plain,
    names_of,
    require_counts,
    require_known,
    require_not_negative,
    require_positive,
    with_values,
)


@dataclass(frozen=True)
class Recipe:
    epochs: int = 3
    lr: float = 0.1
    decay: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        require_counts(self, "epochs", "patience")
        require_positive(self, "lr")
        require_not_negative(self, "decay")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0; give a whole number above 0."),
        ({"patience": -1}, "patience is -1; give a whole number above 0."),
        ({"lr": 0.0}, "lr is 0.0; give a number above 0."),
        ({"lr": math.inf}, "lr is inf; give a number above 0."),
        ({"decay": -0.5}, "decay is -0.5; give a number of at least 0."),
        ({"decay": math.nan}, "decay is nan; give a number of at least 0."),
        ({"epoch": 3}, "unknown setting 'epoch'; did you mean 'epochs'?."),
        ({"zebra": 3}, "unknown setting 'zebra'."),
    ],
)
def test_a_value_out_of_range_and_an_unknown_name_are_refused(values: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        with_values(Recipe(), values)
    assert str(refused.value) == sentence


def test_a_copy_has_the_values_given_and_the_others_unchanged() -> None:
    assert with_values(Recipe(lr=0.5), {"epochs": 7, "patience": 2}) == Recipe(7, 0.5, 0.0, 2)
    assert names_of(Recipe) == names_of(Recipe()) == {"epochs", "lr", "decay", "patience"}
    require_known(["lr"], {"lr"}, "the file has the unknown entry")


def test_plain_values_are_what_json_gives_back() -> None:
    assert as_plain({"a": (1, (2, 3)), 4: {"b": "word"}, "c": None}) == {
        "a": [1, [2, 3]],
        "4": {"b": "word"},
        "c": None,
    }
