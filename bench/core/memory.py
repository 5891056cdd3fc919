"""Memory of this process and of those below it, as far as the system tells (Linux); 0 or None where it does not."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.core.process import descendants

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """How much memory may still be taken, within the limits of a container; None where that is not known."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        found.append(max(0, limit - used))
    return min(found, default=None)


def resident_bytes() -> int:
    """What this process and those below it hold in memory now."""
    return _sum("VmRSS:")


class Peak:
    """The most that this process, and those below it, held since the peak was made or restarted.

    Processes that ended meanwhile are not seen any more, so ``seen()`` is to be asked while they live.
    """

    def __init__(self, *, alone: bool = False) -> None:
        """``alone`` looks at this process only, which takes a tenth of a millisecond instead of some."""
        self._alone = alone
        self.restart()

    def restart(self) -> None:
        """Begin anew, as far as the system allows: else the peak is that of the process's whole life."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._most = 0

    def seen(self, without: Iterable[int] = ()) -> int:
        """Look now; the most so far, in bytes. ``without`` are processes to leave out, with those below them."""
        held = _of(os.getpid(), "VmHWM:") if self._alone else _sum("VmHWM:", without)
        self._most = max(self._most, held)
        return self._most


def device_peak_bytes(device: str) -> int | None:
    """The most that torch held on a device since ``restart_device_peak``; None on a processor."""
    torch = _torch_of(device)
    return int(torch.cuda.max_memory_allocated(device)) if torch is not None else None


def restart_device_peak(device: str) -> None:
    """Begin to look for the peak on a device."""
    torch = _torch_of(device)
    if torch is not None:
        torch.cuda.reset_peak_memory_stats(device)


def _torch_of(device: str) -> Any:
    """Torch where it was imported and can use the device; None otherwise."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and device.startswith("cuda") and torch.cuda.is_available() else None


def give_back() -> None:
    """Have the C library return what was freed to the system, which it otherwise keeps for the next."""
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL("libc.so.6").malloc_trim(0)


def shown(size: int) -> str:
    """A size for people: ``1.4 GB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _sum(key: str, without: Iterable[int] = ()) -> int:
    left_out = {number for one in without for number in (one, *descendants(one))}
    return sum(_of(number, key) for number in {os.getpid(), *descendants(os.getpid())} - left_out)


def _of(number: int, key: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{number}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(key):
                return 1024 * int(line.split()[1])
    return 0
