from __future__ import annotations

import pickle

import pytest

from equivox import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("a.nii is empty."),
        errors.GeometryError("singular"),
        errors.ConfigError("--workers is 0."),
        errors.OutputError("full"),
        errors.ModelFolderError("none there"),
        errors.MissingExtraError("nibabel", "mri", "reading NIfTI"),
    ],
)
def test_an_error_travels_between_processes_whole(error: errors.EquivoxError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_each_error_has_its_own_code_and_an_exit_code_of_the_list() -> None:
    kinds = errors.EquivoxError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) == 6
    assert {kind.exit_code for kind in kinds} == {2, 3, 4, 5}


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    error = errors.MissingExtraError("nibabel", "mri", "Reading NIfTI files")
    assert str(error) == 'Reading NIfTI files needs the package nibabel; install it with: pip install "equivox[mri]"'


def test_the_nearest_known_word_is_named_and_none_where_nothing_is_near() -> None:
    assert errors.did_you_mean("lmx", ["lmax", "side"]) == "; did you mean 'lmax'?"
    assert errors.did_you_mean("zebra", ["lmax", "side"]) == ""


def test_of_what_another_library_says_one_line_is_told() -> None:
    assert errors.reason_of(ValueError("no such block. \nsecond line")) == "no such block"
    assert errors.reason_of(KeyError()) == "KeyError"
