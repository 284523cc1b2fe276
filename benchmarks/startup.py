"""CPU seconds until the command line answers: ``python benchmarks/startup.py [--rounds N] [--out FILE.md]``.

Every line is a fresh interpreter (user + system time of the process and its children), measured in turn with the
others, after one warm-up round; the table holds medians, their range, and the ratio to the bare interpreter. The goal
is 0.3 CPU s for the help of ``equivox`` and of every group.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path

GOAL_S = 0.3
GROUPS = ("", "pose", "pose train", "model")
BARE = "python -c pass"
FLOOR = "the command-line engine alone (imports)"
HELPS = (
    "", "pose", "pose predict", "pose evaluate", "pose train", "pose train segment", "pose train rotate", "demo",
    "model", "model list", "model info", "model verify", "model import", "doctor", "completion",
)  # fmt: skip
EXTRA = {
    "equivox --version": ["--version"],
    "equivox pose predict --ot x (a mistake)": ["pose", "predict", "a.nii", "--ot", "x"],
    "equivox completion bash": ["completion", "bash"],
}


def help_of(path: str) -> str:
    """The command line that asks for the help of a command."""
    return f"equivox {path} --help".replace("  ", " ")


def lines() -> dict[str, list[str]]:
    """What is measured: a name, and the arguments of the interpreter."""
    entry = "import sys; from equivox.cli.main import main; sys.exit(main(sys.argv[1:]))"
    found = {BARE: ["-c", "pass"]}
    for path in HELPS:
        found[help_of(path)] = ["-c", entry, *path.split(), "--help"]
    for name, arguments in EXTRA.items():
        found[name] = ["-c", entry, *arguments]
    found['python -c "import equivox"'] = ["-c", "import equivox"]
    found[FLOOR] = ["-c", "import cyclopts, cyclopts.help, rich.console, rich.table, rich.panel, docstring_parser"]
    return found


def cpu_seconds(arguments: list[str]) -> float:
    """User + system time of one fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def table(samples: dict[str, list[float]]) -> str:
    """Markdown."""
    bare = statistics.median(samples[BARE])
    rows = [
        f"| `{name}` | {statistics.median(values):.3f} | {min(values):.3f} to {max(values):.3f} "
        f"| {statistics.median(values) / bare:.1f} |"
        for name, values in samples.items()
    ]
    head = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}; CPU s, median of {{}} runs."
    count = len(samples[BARE])
    return "\n".join(
        [head.format(count), "", "| line | median | range | ratio to bare |", "| --- | --- | --- | --- |", *rows]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    commands = lines()
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(options.rounds + 1):
        for name, arguments in commands.items():
            seconds = cpu_seconds(arguments)
            if round_ > 0:
                samples[name].append(seconds)
    text = table(samples)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    slow = [help_of(path) for path in GROUPS if statistics.median(samples[help_of(path)]) > GOAL_S]
    if slow:
        print(f"above {GOAL_S} CPU s: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
