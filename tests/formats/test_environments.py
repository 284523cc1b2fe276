"""Residue environments: the archive, all-atom structures, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import InputError
from equivox.formats.environments import AMINO_ACIDS, environments_of, read_environments
from equivox.formats.proteins import read_structure
from equivox.geometry.density import gaussian_density

Find = Callable[[str], Path]


def small_set(path: Path, **changed: np.ndarray[Any, Any]) -> Path:
    """Two chains of two residues each (A, G) with made-up atoms; hundredths of an ångström."""
    residue = np.array([[-146, 0, 0], [0, 0, 0], [55, 142, 0], [60, 240, 30], [60, -70, 120]], dtype=np.int16)
    atoms = np.concatenate([residue, residue[:4] + [380, 0, 0], residue, residue[:4] + [380, 0, 0]]).astype(np.int16)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "chain": np.array([b"1abcA", b"2defB"]), "split": np.array([0, 9], np.int8),
        "res_offset": np.array([0, 2, 4]), "atom_offset": np.array([0, 5, 9, 14, 18]),
        "aa": np.array([0, 5, 0, 5], np.uint8), "resnum": np.array([1, 2, 1, 2], np.int16),
        "icode": np.array([b"", b"A", b"", b""]), "xyz": atoms,
        "atom_name": np.array([0, 1, 2, 3, 4, 0, 1, 2, 3] * 2, np.uint8),
        "atom_names": np.array([b"N", b"CA", b"C", b"O", b"CB"]),
        "atom_elements": np.array([b"N", b"C", b"C", b"O", b"C"]),
        "aa_letters": np.array(AMINO_ACIDS),
    }  # fmt: skip
    np.savez(path, **(arrays | changed))
    return path


def test_a_small_set(tmp_path: Path) -> None:
    found = read_environments(small_set(tmp_path / "small.npz"))
    assert found.residues == ("1", "2A", "1", "2")
    assert found.residue_chain.tolist() == [0, 0, 1, 1]
    assert found.usable().tolist() == [0, 1, 2, 3]
    frames, _ = found.frames(found.usable())
    points, channel = found.boxes(found.usable(), rotation=frames)
    assert (channel >= 0).sum(dim=1).tolist() == [8, 9, 8, 9]  # the C-beta of an alanine is not in its own box
    assert points.shape[:2] == channel.shape
    first, third = (
        gaussian_density(points[k : k + 1], channel[k : k + 1], channels=4, side=20, spacing=1.0, sigma=0.6)
        for k in (0, 2)
    )
    assert_close(first, third)  # the other chain is not there


def test_the_shared_set_has_the_boxes_of_the_fixture(shared_path: Find, fixture_path: Find) -> None:
    found = read_environments(shared_path("data/proteins/environments.npz"))
    stored = np.load(fixture_path("shapes/environment/boxes.npz"))
    assert len(found) == 33193
    assert len(found.usable()) == 33192  # one residue lacks an atom of its backbone
    assert torch.bincount(found.labels)[:4].tolist() == [2462, 624, 1954, 2341]
    chain = found.chains.index(stored["chain"].item().decode())
    rows = found.residue_offsets[chain] + torch.as_tensor(stored["residue_index"])
    assert found.labels[rows].tolist() == stored["aa"].tolist()
    frames, _ = found.frames(rows)
    points, channel = found.boxes(rows, rotation=frames)
    box = gaussian_density(points, channel, channels=4, side=20, spacing=1.0, sigma=0.6, normalization="analytic")
    for k in range(3):
        assert_close(box[k], torch.as_tensor(stored[f"box_{k}"]), atol=1e-4, rtol=0)


def test_a_structure_gives_the_same_as_its_archive_would(fixture_path: Find) -> None:
    found = environments_of(read_structure(fixture_path("shapes/pdb/plain.pdb")))
    assert "".join(AMINO_ACIDS[label] for label in found.labels.tolist()) == "AGSVK"
    assert len(found.usable()) == 5
    assert torch.bincount(found.channel).tolist()[1] == 5  # one N each


def test_selenium_counts_as_sulphur_and_unknown_elements_are_in_no_channel(tmp_path: Path) -> None:
    rows = [
        ("N", "MSE", "-1.200   0.300   0.000", "N"), ("CA", "MSE", " 0.000   0.000   0.000", "C"),
        ("C", "MSE", " 1.100   0.900   0.200", "C"), ("O", "MSE", " 1.000   2.100   0.300", "O"),
        ("SE", "MSE", " 0.100  -2.000   1.100", "SE"), ("P", "MSE", " 0.100  -3.000   1.100", "P"),
    ]  # fmt: skip
    text = "".join(
        f"ATOM  {i:5d} {name:>2}   {res} A   1      {place}  1.00 10.00          {element:>2}\n"
        for i, (name, res, place, element) in enumerate(rows, start=1)
    )
    (tmp_path / "se.pdb").write_text(text)
    found = environments_of(read_structure(tmp_path / "se.pdb"))
    assert found.labels.tolist() == [AMINO_ACIDS.index("M")]
    assert found.channel.tolist() == [1, 0, 0, 2, 3, -1]


def test_a_trace_alone_has_no_environments(tmp_path: Path, fixture_path: Find) -> None:
    lines = fixture_path("shapes/pdb/plain.pdb").read_text().splitlines(keepends=True)
    (tmp_path / "trace.pdb").write_text("".join(line for line in lines if line[12:16] == " CA "))
    with pytest.raises(InputError, match="no residue with the atoms N, CA and C"):
        environments_of(read_structure(tmp_path / "trace.pdb"))


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"aa": np.array([0, 5, 0, 20], np.uint8)}, "holds 20"),
        ({"atom_offset": np.array([0, 5, 9, 14, 17])}, "does not divide the 18 rows"),
        ({"res_offset": np.array([0, 0, 4])}, "does not divide the 4 rows"),
        ({"aa_letters": np.array("ARND")}, "orders the amino acids as 'ARND'"),
        ({"atom_name": np.full(18, 9, np.uint8)}, "atom_names has entries 0 to 4"),
        ({"split": np.array([0, 10], np.int8)}, "holds 10"),
        ({"xyz": np.zeros((18, 2), np.int16)}, r"\(18, 2\)"),
    ],
)
def test_a_set_that_contradicts_itself(tmp_path: Path, changed: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        read_environments(small_set(tmp_path / "bad.npz", **changed))
