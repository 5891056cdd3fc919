"""What works here, what does not, and the command that would change it.

Each probe looks at one thing and is guarded: whatever it meets becomes a line, so the doctor itself cannot fall ill.
What may bring a whole process down (torch, a driver) is looked at in a process of its own, beside the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.doctor import installation, parts, weights
from bench.doctor.line import Line, Probe

FORMAT = 1


def examine(out: Path, weights_dir: Path | None, tell: Callable[[Line], None] = lambda line: None) -> list[Line]:
    """Look at everything; ``out`` is where runs would be written. Each line is told as soon as it is known."""
    torch = installation.torch_probe()
    probes: list[tuple[str, bool, Probe]] = [
        ("rfbench", False, installation.rfbench),
        ("python", True, installation.python),
        ("packages", True, installation.packages),
        ("threads", False, installation.threads),
        ("data", True, parts.embedded),
        ("models", True, lambda: parts.models(weights_dir)),
        ("plugins", False, parts.plugins),
        ("weights", False, lambda: weights.weights_folders(weights_dir)),
        ("metrics", False, lambda: weights.metrics(weights_dir)),
        ("licences", False, weights.licences),
        ("output", True, lambda: installation.output(out)),
        ("torch", True, torch),  # last: it takes longer to come than all the others together
    ]
    lines = []
    for subject, needed, probe in probes:
        for line in _guarded(subject, needed, probe):
            lines.append(line)
            tell(line)
    return lines


def broken(lines: list[Line]) -> bool:
    """Whether something that the embedded benchmark needs does not work."""
    return any(line.state == "problem" and line.needed for line in lines)


def document(lines: list[Line]) -> dict[str, Any]:
    """The findings as JSON; ``format`` counts the versions of this document."""
    found = [asdict(line) for line in lines]
    return {"format": FORMAT, "embedded_benchmark_runs": not broken(lines), "findings": found}


def _guarded(subject: str, needed: bool, probe: Probe) -> Iterator[Line]:
    try:
        for line in probe():
            yield Line(line.subject, line.state, one_line(line.found, 500), one_line(line.next_step, 300), line.needed)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, RfbenchError) else f"{type(error).__name__}: "
        text = f"could not be looked at: {kind}{one_line(error, 300)}"
        yield Line(subject, "problem", text, "repair what the text names", needed)
