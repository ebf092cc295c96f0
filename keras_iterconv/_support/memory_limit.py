"""The memory that this process may use."""

import os
import sys
from contextlib import suppress
from pathlib import Path

# Where it cannot be found out.
ASSUMED = 8 * 2**30
# Files of Linux's control groups with the limit of a container, versions 2 and 1.
_GROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def memory_limit() -> int:
    """Return the number of bytes that this process may use.

    That is the smallest of the machine's memory, the limit of the container, and what is left of
    the limits that are set for the process (`ulimit -v` and `ulimit -d`).
    """
    limits = [*_of_machine(), *_of_container(), *_of_process()]
    return min(limits, default=ASSUMED)


def _of_machine() -> list[int]:
    # Windows and macOS lack one of the two names.
    with suppress(AttributeError, ValueError, OSError):
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    return []


def _of_container() -> list[int]:
    limits = []
    for file in _GROUP_LIMITS:
        # No such file, or "max" for no limit.
        with suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return limits


def _of_process() -> list[int]:
    if sys.platform == "win32":
        return []
    import resource

    used_of_kind = zip((resource.RLIMIT_AS, resource.RLIMIT_DATA), _used(), strict=True)
    limits = [(resource.getrlimit(kind)[0], used) for kind, used in used_of_kind]
    return [max(soft - used, 0) for soft, used in limits if soft != resource.RLIM_INFINITY]


def _used() -> tuple[int, int]:
    """Return the bytes of this process's address space and of its data; 0 where not known."""
    with suppress(OSError, IndexError, ValueError):
        pages = [int(number) for number in Path("/proc/self/statm").read_text().split()]
        return pages[0] * os.sysconf("SC_PAGE_SIZE"), pages[5] * os.sysconf("SC_PAGE_SIZE")
    return 0, 0
