"""Channel layouts: reading, order, arithmetic."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep, Irreps

O3_BLOCKS = st.lists(
    st.tuples(st.integers(0, 9), st.builds(Irrep, st.integers(0, 5), st.sampled_from([1, -1]))), max_size=6
)
SO3_BLOCKS = st.lists(st.tuples(st.integers(0, 9), st.builds(Irrep, st.integers(0, 5), st.just(0))), max_size=6)


@given(blocks=st.one_of(O3_BLOCKS, SO3_BLOCKS))
def test_text_round_trip_keeps_every_block(blocks: list[tuple[int, Irrep]]) -> None:
    layout = Irreps(blocks)
    assert Irreps(str(layout)) == layout
    assert pickle.loads(pickle.dumps(layout)) == layout
    assert copy.deepcopy(layout) == layout
    assert hash(Irreps(str(layout))) == hash(layout)


@given(blocks=O3_BLOCKS)
def test_slices_tile_the_channels_and_sorting_keeps_them_all(blocks: list[tuple[int, Irrep]]) -> None:
    layout = Irreps(blocks)
    edges = [0, *[part.stop for part in layout.slices()]]
    assert [part.start for part in layout.slices()] == edges[:-1]
    assert edges[-1] == layout.dimension == sum(irrep.dimension for irrep in layout.copies())
    assert sorted(map(str, layout.sort().copies())) == sorted(map(str, layout.copies()))
    assert layout.simplify().copies() == layout.copies()


def test_sort_puts_odd_before_even_and_keeps_the_order_of_equals() -> None:
    assert str(Irreps("3x0e+2x0o+4x0e+2x1o+1x1e").sort()) == "2x0o+3x0e+4x0e+2x1o+1x1e"
    assert str(Irreps("3x0e+4x0e+0x1o+2x0e").simplify()) == "9x0e"


def test_products_follow_the_triangle_and_the_parity() -> None:
    assert Irrep(1, -1) * Irrep(2, 1) == (Irrep(1, -1), Irrep(2, -1), Irrep(3, -1))
    assert Irrep(1, 0) * Irrep(1, 0) == (Irrep(0, 0), Irrep(1, 0), Irrep(2, 0))
    with pytest.raises(ConfigError, match="different groups"):
        Irrep(1, 0) * Irrep(1, 1)


def test_spaces_bare_irreps_and_multiplication_are_read() -> None:
    assert Irreps(" 16x0e + 8 x 1o ") == "16x0e+8x1o"
    assert Irreps("1o") == Irreps([(1, "1o")]) == Irreps(Irrep(1, -1)) == Irreps(["1o"])
    assert 2 * Irreps("1x0e+3x1o") == "2x0e+6x1o"
    assert Irreps("1x0e") + "2x1o" == "1x0e+2x1o"
    assert Irreps("").dimension == 0
    assert Irreps("2x0e+1x1o+3x0e").count("0e") == 5


@pytest.mark.parametrize(
    ("text", "message"), [("4x0e+2y1o", "'2y1o'"), ("1x0e+1x1", "mixes"), ("-2x0e", "cannot be read"), ("2x1f", "2x1f")]
)
def test_what_cannot_be_read_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Irreps(text)


def test_layouts_of_e3nn_are_accepted() -> None:
    o3 = pytest.importorskip("e3nn.o3")
    assert Irreps(o3.Irreps("3x0e+2x1o")) == "3x0e+2x1o"
