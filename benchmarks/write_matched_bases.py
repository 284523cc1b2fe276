"""Write the matched bases that ship with the package: `python benchmarks/write_matched_bases.py [FILE]`.

Run it after a change of the recipe, together with a new `VERSION` in `equivox/kernels/matched.py`; a test recomputes
the file and fails when the two disagree.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from equivox.kernels import matched
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.matched import MatchedShells


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(matched.__file__).with_name(matched.SHIPPED_FILE)
    arrays = {"version": np.array(matched.VERSION)}
    for size in matched.SHIPPED_SIZES:
        family, grid = MatchedShells.for_kernel(size), TapGrid.for_size(size)
        for degree, shells in enumerate(family.shells):
            if shells:
                arrays[f"k{size}_J{degree}"] = matched.compute_functions(family, degree, grid)
    with target.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    print(f"{target}: {len(arrays) - 1} bases, {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
