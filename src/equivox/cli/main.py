"""The command ``equivox``: groups registered by import path, one way out for every error.

Nothing here, and nothing that a ``--help`` reaches, loads torch: a group's file is imported when that group is asked
for, and a task when its command runs. Data go to stdout, text for people to stderr.

Exit codes: 0 done; 1 some inputs failed (listed, the others are written); 2 usage or configuration; 3 nothing could be
read or used; 4 model folder; 5 an optional package is missing; 70 a bug of ours; 130 interrupted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Literal

from cyclopts import App, CycloptsError, Group

from equivox import __version__
from equivox.errors import EquivoxError

EXIT_USAGE, EXIT_NOTHING_READ, EXIT_BUG, EXIT_INTERRUPTED = 2, 3, 70, 130
OUTPUT_ERRNOS = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG})

WORK = Group("Work", sort_key=1)
KNOW = Group("Know and keep", sort_key=2)
COMMANDS: tuple[tuple[str, str, Group, str], ...] = (
    (
        "pose",
        "equivox.cli.pose:app",
        WORK,
        "Position and orientation of a head (or another object) in 3D and 4D scans.",
    ),
    (
        "shapes",
        "equivox.cli.shapes:app",
        WORK,
        "Which class a shape, a protein domain or a residue belongs to, however it is turned.",
    ),
    (
        "encode",
        "equivox.cli.encode:app",
        WORK,
        "Brain MRI as vectors that turn with the head and numbers that do not.",
    ),
    (
        "pick",
        "equivox.cli.pick:app",
        WORK,
        "Find particles in cryo-EM micrographs, and carry picks between programs.",
    ),
    (
        "simulate",
        "equivox.cli.simulate:app",
        WORK,
        "Make data whose truth is known: scans, motion, atrophy, particles, micrographs.\n\n"
        "For example:\n\nequivox simulate head --out heads --count 20\n\nequivox simulate head --help",
    ),
    (
        "orient",
        "equivox.cli.orient:app",
        WORK,
        "Orientations of particles in cryo-EM from single projections, each with its confidence.",
    ),
    (
        "images",
        "equivox.cli.images:app",
        WORK,
        "Which class an image belongs to, with filters that are views of one object in space.",
    ),
    (
        "demo",
        "equivox.cli.demo:demo",
        WORK,
        "Find the head in two real fetal scans that come with the package.\n\n"
        "Predicts, compares with the landmarks, and writes a page with pictures.\n\n"
        "For example:\n\nequivox demo --out build/demo --overwrite\n\nequivox demo --out build/demo --json",
    ),
    ("model", "equivox.cli.model:app", KNOW, "List, inspect, verify, import and export model folders."),
    (
        "doctor",
        "equivox.cli.doctor:doctor",
        KNOW,
        "Check this installation: versions, device, memory, packages, models.\n\n"
        "The first thing to run when something does not work, and to paste into a bug report.\n\n"
        "For example:\n\nequivox doctor\n\nequivox doctor --json > doctor.json",
    ),
    (
        "completion",
        "equivox.cli.main:completion",
        KNOW,
        "Print the completion script of a shell.\n\nFor example:\n\n"
        "equivox completion bash > ~/.local/share/bash-completion/completions/equivox\n\n"
        "equivox completion fish > ~/.config/fish/completions/equivox.fish",
    ),
)
"""Name, import path, group, help (its first line is shown in the list): what exists, and nothing that does not."""

app = App(
    name="equivox",
    help="Rotation-equivariant deep learning for volumes and images. For research; not a medical device.",
    help_epilogue="Every command also takes --debug, which shows where an error arose.",
    help_format="plaintext",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
app["--help"].group = app["--version"].group = (Group("Options", sort_key=3),)
for _name, _path, _group, _help in COMMANDS:
    app.command(_path, name=_name, help=_help, group=_group)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion script of a shell.

    Parameters
    ----------
    shell
        Which shell will read it.
    """
    sys.stdout.write(app.generate_completion(shell=shell))


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; an error becomes one sentence on stderr.

    ``--debug`` may stand anywhere before ``--`` and adds the traceback. With ``--json`` an error that ends the run
    is also one JSON document on stdout.
    """
    options, debug = _take_debug(arguments)
    _log_to_stderr(debug)
    try:
        code = app(options, exit_on_error=False, print_error=False, result_action="return_int_as_exit_code_else_zero")
        sys.stdout.flush()
        return int(code)
    except BrokenPipeError:  # the reader of our output (head, less) went away: nothing to say, nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _report(
            "EQV-INTERRUPTED", "Interrupted; what was finished is written.", EXIT_INTERRUPTED, options, debug
        )
    except EquivoxError as error:
        return _report(error.code, str(error), error.exit_code, options, debug)
    except CycloptsError as error:
        return _report("EQV-USAGE", f"{_usage(error)} See {_help_for(error)}.", EXIT_USAGE, options, debug)
    except OSError as error:
        code = EXIT_USAGE if error.errno in OUTPUT_ERRNOS else EXIT_NOTHING_READ
        place = f"{error.filename}: " if error.filename else ""
        return _report("EQV-OS", f"{place}{error.strerror or error}.", code, options, debug)
    except MemoryError:
        text = "There is not enough memory for this input; use fewer --workers or a machine with more."
        return _report("EQV-MEMORY", text, EXIT_NOTHING_READ, options, debug)
    except Exception as error:
        text = f"This is a bug of equivox {__version__}: {type(error).__name__}: {error} (--debug shows where)."
        return _report("EQV-BUG", text, EXIT_BUG, options, debug)


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main(sys.argv[1:]))


class _Stderr(logging.Handler):
    """Writes to whatever stderr is now."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message alone."""
        print(self.format(record), file=sys.stderr)


def _log_to_stderr(debug: bool) -> None:
    """Show our own log: warnings, with ``--debug`` everything (the traces of failed inputs too); not others'."""
    log = logging.getLogger("equivox")
    if not any(isinstance(handler, _Stderr) for handler in log.handlers):
        log.addHandler(_Stderr())
    log.setLevel(logging.DEBUG if debug else logging.WARNING)


def _take_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, and whether it was there."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    kept = [text for index, text in enumerate(arguments) if index >= end or text != "--debug"]
    return kept, len(kept) < len(arguments)


def _usage(error: CycloptsError) -> str:
    """Cyclopts' sentence on one line, with a full stop."""
    try:
        text = " ".join(str(error).split())
    except ImportError as broken:  # its suggestions import every group
        text = f"Unknown command ({broken})"
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _help_for(error: CycloptsError) -> str:
    """The help command of where the mistake was made."""
    chain = [name for name in (error.command_chain or ()) if not name.startswith("-")]
    return " ".join(["equivox", *chain, "--help"])


def _report(code: str, message: str, exit_code: int, options: Sequence[str], debug: bool) -> int:
    """Say what went wrong, for people and, if they asked, for machines."""
    if debug:
        traceback.print_exc(file=sys.stderr)
    print(f"equivox: {message}", file=sys.stderr)
    if "--json" in options:
        document = {
            "schema": "equivox.error/1",
            "version": __version__,
            "results": [],
            "warnings": [],
            "errors": [{"code": code, "message": message}],
        }
        print(json.dumps(document, indent=2))
    return exit_code


if __name__ == "__main__":
    run()
