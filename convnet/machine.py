"""What figures depend on besides the code: the machine, the commit; memory of this process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent  # of the checkout, if this is one
STATUS = Path("/proc/self/status")


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """The threads of a kernel unless somebody says: a core each, fewer by NUMBA_NUM_THREADS."""
    import numba

    return min(cores(), numba.config.NUMBA_NUM_THREADS)


def describe() -> dict:
    """Processor, cores, system, Python, commit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), "")
    flags = next((l.split() for l in lines if l.startswith("flags")), [])
    vector = next((f for f in ("avx512f", "avx2", "avx") if f in flags), "")
    return {
        "cpu": f"{model or platform.processor() or platform.machine()} {vector}".strip(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
    }


def commit() -> str:
    """Of the code that runs, + if it has changes; '' where it is no checkout."""

    def git(*words):
        try:
            done = subprocess.run(["git", *words], cwd=HOME, capture_output=True, text=True)
        except OSError:
            return ""
        return done.stdout.strip() if not done.returncode else ""

    if git("rev-parse", "--show-toplevel") != str(HOME):
        return ""
    written = ":!docs", ":!benchmarks/*.json"  # by the measurements themselves
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def resident() -> int:
    """Bytes of memory that this process has now, where the system says it (Linux), else 0."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let peak() begin from what the process has now; does nothing where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak() -> int:
    """Bytes that this process had at most since forget_peak, libraries and all.

    On Linux not getrusage's number, which begins with what the parent had when it forked.
    """
    if found := _status("VmHWM"):
        return found
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(word: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(l.split()[1]) * 1024 for l in lines if l.startswith(f"{word}:")), 0)
