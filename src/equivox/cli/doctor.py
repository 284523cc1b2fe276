"""``equivox doctor``: check this installation and say what would fail later."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from equivox.cli.speaking import print_results

EXIT_UNSOUND = 1


def doctor(*, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Check this installation: versions, device, memory, packages, models.

    Exit code 0 if everything works, 1 if something fails; notes change nothing.

    Parameters
    ----------
    json
        Print one JSON document on stdout.
    """
    from equivox.run.checkup import check_installation

    findings = []
    for finding in check_installation():
        findings.append(finding)
        if not json:
            print(f"  {finding.level:4}  {finding.name}: {finding.text}", flush=True)
    failed = [finding for finding in findings if finding.level == "fail"]
    if json:
        notes = [finding.text for finding in findings if finding.level == "note"]
        errors = [{"code": "EQV-DOCTOR", "message": f"{f.name}: {f.text}"} for f in failed]
        print_results("equivox.doctor/1", [finding.as_dict() for finding in findings], notes, errors)
    elif failed:
        print(f"equivox: {len(failed)} check(s) failed: {', '.join(f.name for f in failed)}.", file=sys.stderr)
    return EXIT_UNSOUND if failed else 0
