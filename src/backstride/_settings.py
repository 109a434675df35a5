# SPDX-License-Identifier: Apache-2.0
"""Process-wide settings: the number of threads, and the instruction set. Environment variables set them at import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from backstride import _native
from backstride._arguments import integer, shown

_OPTIONAL = ("autograd", "ml_dtypes", "pillow", "rich", "scikit-image", "scipy", "torch", "typer")


def set_num_threads(count: int) -> None:
    """Sets how many threads one call may use, for the whole process. Results do not depend on it.

    >>> import backstride
    >>> backstride.set_num_threads(2)
    >>> backstride.get_num_threads()
    2

    Args:
        count: a positive int. Initially it is BACKSTRIDE_NUM_THREADS, or else the number of processors that the
            process may use, by its CPU affinity and its control group's quota.

    Raises:
        ValueError: `count` is not positive, or above 1024.
        TypeError: `count` is not an int.
    """
    count = integer("count", count)
    if not 1 <= count <= 1024:
        raise ValueError(f"`count` must be from 1 to 1024; got count={shown(count)}")
    _native.set_threads(count)


def get_num_threads() -> int:
    """How many threads one call may use, the calling one included."""
    return _native.threads()


def release_memory() -> None:
    """Gives the memory back to the system that is kept for the next large results and packed filters: at most 256 MB.

    >>> import backstride
    >>> backstride.release_memory()
    """
    _native.release_results()


def show_config() -> None:
    """Prints the version, the instruction set in use, the number of threads, which extras are installed and, of JAX,
    what computes on its arrays in the memory of CPUs."""
    rows = {
        "backstride": _version("backstride"),
        "instruction set": _native.isa(),
        "threads": str(get_num_threads()),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
    }
    rows |= {name: _version(name) for name in _OPTIONAL} | {"jax": _jax()}
    for name, value in rows.items():
        print(f"{name:16} {value}")


def _version(name: str) -> str:
    from importlib import metadata  # slow to import, and needed here only

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _jax() -> str:
    """JAX's version, and what computes on its arrays in the memory of CPUs; without importing JAX."""
    version = _version("jax")
    if version == "not installed":
        return version
    loaded: Any = sys.modules.get("backstride._backends.jax")
    if loaded and loaded.without_core:
        return f"{version}, on CPUs lax.conv_general_dilated: {loaded.without_core}"
    return f"{version}, on CPUs {'the compiled core' if _native.xla_target() else 'lax.conv_general_dilated'}"


def usable_cpus(control_groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """The processors that this process may use: its CPU affinity, or fewer if its control group has a quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(control_groups, membership) if (quota := _quota(folder))]
    return max(1, min([cpus, *quotas]))


def _groups(control_groups: Path, membership: Path) -> list[Path]:
    """The control groups of this process which may limit its CPU time, with all that enclose them."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2: one hierarchy of all controllers
            root = control_groups
        elif "cpu" in controllers.split(","):  # version 1
            root = control_groups / "cpu"
        else:
            continue
        folder = root / path.lstrip("/")
        folders += [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]
    return folders


def _quota(folder: Path) -> int:
    """The processors' worth of time that a control group grants, rounded up; 0 if it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or "max"
        return 0


def read_environment() -> None:
    """Applies BACKSTRIDE_NUM_THREADS and BACKSTRIDE_ISA."""
    count = os.environ.get("BACKSTRIDE_NUM_THREADS") or str(usable_cpus())
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) <= 1024:
        raise ValueError(f"BACKSTRIDE_NUM_THREADS must be an int from 1 to 1024; got {count!r}")
    set_num_threads(int(count))
    isa = os.environ.get("BACKSTRIDE_ISA")
    if isa and isa not in _native.ISAS:
        raise ValueError(f"BACKSTRIDE_ISA must be one of {', '.join(_native.ISAS)}; got {isa!r}")
    if isa:
        _native.lower_isa(isa)
