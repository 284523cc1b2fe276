"""What reading and down-sampling a 4096² micrograph costs: ``python benchmarks/read_micrograph.py [--rounds N]``.

Every line runs in a fresh process with one thread; import of torch and NumPy is outside the measured part. CPU seconds
are medians; memory is the growth of the peak over the imports. The peers are mrcfile with one full real FFT, and a mean
over blocks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

SIDE, SMALL = 4096, 512


def ours(path: Path) -> float:
    from equivox.formats.micrographs import open_micrograph
    from equivox.tasks.pick.downsample import fourier_resample

    return float(fourier_resample(open_micrograph(path).pixels, (SMALL, SMALL)).mean())


def ours_open(path: Path) -> float:
    from equivox.formats.micrographs import open_micrograph

    return float(open_micrograph(path).pixels[0, 0])


def peer_fft(path: Path) -> float:
    import mrcfile

    with mrcfile.open(path) as file:
        spectrum = torch.fft.rfft2(torch.from_numpy(file.data.astype(np.float32)))
    half = SMALL // 2
    rows = torch.cat([spectrum[:half, : half + 1], spectrum[-half:, : half + 1]])
    return float(torch.fft.irfft2(rows, s=(SMALL, SMALL)).mean() * (SMALL / SIDE) ** 2)


def peer_blocks(path: Path) -> float:
    import mrcfile

    factor = SIDE // SMALL
    with mrcfile.open(path) as file:
        return float(file.data.astype(np.float32).reshape(SMALL, factor, SMALL, factor).mean((1, 3)).mean())


def measured(function: Callable[[Path], float], path: Path) -> tuple[float, float]:
    """CPU seconds and MB of peak memory, in a process of its own."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_run, args=(function, path, child))
    process.start()
    found = parent.recv()
    process.join()
    return found


def _run(function: Callable[[Path], float], path: Path, pipe: object) -> None:
    torch.set_num_threads(1)
    if "peer" in function.__name__:
        import mrcfile  # noqa: F401
    else:
        import equivox.formats.micrographs
        import equivox.tasks.pick.downsample  # noqa: F401
    before, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    function(path)
    seconds = time.process_time() - clock
    pipe.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))  # type: ignore[attr-defined]


def main() -> None:
    from equivox.formats.mrc import write_mrc

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE)) * 20
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for kind in ("int8", "int16", "float16", "float32"):
            files[f"MRC {kind}"] = Path(folder) / f"{kind}.mrc"
            data = noise.clip(-120, 120).astype(kind)
            write_mrc(files[f"MRC {kind}"], data, pixel_size_angstrom=1.34)
        try:
            import tifffile

            files["TIFF float32"] = Path(folder) / "a.tif"
            tifffile.imwrite(files["TIFF float32"], noise.astype(np.float32))
        except ImportError:
            pass
        lines = {f"{name}: open and check": (ours_open, path) for name, path in files.items()}
        lines |= {f"{name}: open, check, Fourier crop to {SMALL}²": (ours, path) for name, path in files.items()}
        lines["peer: mrcfile, full FFT, float32"] = (peer_fft, files["MRC float32"])
        lines["peer: mrcfile, mean of 8 x 8 blocks, float32"] = (peer_blocks, files["MRC float32"])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in lines}
        for turn in range(rounds + 1):
            for name, (function, path) in lines.items():
                found = measured(function, path)
                if turn:  # the first round warms the disk's cache
                    times[name].append(found)
    print(f"{SIDE}² pixels, one thread, {rounds} rounds, {platform.machine()}, Python {platform.python_version()}\n")
    print("| what | CPU s (median) | range | peak memory MB |\n| --- | --- | --- | --- |")
    for name, values in times.items():
        seconds, memory = zip(*values, strict=True)
        low, high = min(seconds), max(seconds)
        print(
            f"| {name} | {statistics.median(seconds):.3f} | {low:.3f} to {high:.3f} | {statistics.median(memory):.0f} |"
        )


if __name__ == "__main__":
    main()
