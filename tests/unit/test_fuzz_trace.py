"""What strace writes of a worker's calls, and which of them an input must not lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.trace import BEGIN, forbidden

_MARK = f'7 openat(AT_FDCWD</tmp/w>, "{BEGIN}", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)'
_UNIX = '7 connect(3<socket:[9]>, {sa_family=AF_UNIX, sun_path="/tmp/pymp-a/s"}, 110) = 0'
_NET = "8 connect(3<socket:[9]>, {sa_family=AF_INET, sin_port=htons(80), sin_port=1}, 16) = 0"


@pytest.mark.parametrize(
    ("line", "is_forbidden"),
    [
        ('7 openat(AT_FDCWD</tmp/w>, "/etc/passwd", O_RDONLY) = 3</etc/passwd>', False),
        ('7 openat(AT_FDCWD</tmp/w>, "/tmp/ours-1/out/y", O_WRONLY|O_CREAT, 0666) = 3</tmp/ours-1/out/y>', False),
        ('8 openat(AT_FDCWD</tmp/ours-1>, "y", O_WRONLY|O_CREAT <unfinished ...>', False),
        ('8 openat(AT_FDCWD</srv/w>, ".cache", O_WRONLY|O_CREAT, 0666) = 3</srv/w/.cache>', True),
        ('7 openat(AT_FDCWD</tmp/ours-1>, "/tmp/ours-1/../x", O_RDWR) = 3</tmp/x>', True),
        ('7 openat(AT_FDCWD</tmp/ours-1>, "/dev/null", O_RDWR) = 3</dev/null>', False),
        ('7 rename("/tmp/ours-1/a", "/home/a") = 0', True),
        ('7 symlink("/etc/passwd", "/tmp/ours-1/in/b") = 0', False),
        ('7 symlink("/tmp/ours-1/in/b", "/srv/b") = 0', True),
        ('7 unlinkat(5</srv>, "b", 0) = 0', True),
        ('7 execve("/usr/bin/python3", ["python3"], 0x7f /* 9 vars */) = 0', False),
        (_UNIX, False),
        (_NET, True),
    ],
)  # fmt: skip
def test_calls_outside_of_the_input_s_folders_are_seen(tmp_path: Path, line: str, is_forbidden: bool) -> None:
    log = tmp_path / "calls"
    log.write_text(f"{_MARK}\n{line}\n")
    assert list(forbidden(log, ("/tmp/ours-",))) == [line] * is_forbidden
    log.write_text(f"{line}\n{_MARK}\n")
    assert not list(forbidden(log, ("/tmp/ours-",))), "what comes before the inputs is not theirs"
