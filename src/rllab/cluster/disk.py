"""Whether there is room on a disk: the free space of a file system, the user's quota, and small homes."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from rllab.core.errors import MachineFault, Mistake

GB, MB = 1e9, 1 << 20
SMALL_HOME = 10 * GB  # bytes of a home on a cluster whose quota is not known, as at Boston University
_SHARE = 0.1  # of such a home that may be filled


def check_room(folder: Path, needed: float) -> None:
    """Refuses a download into a folder of the hub's cache that has no room for it, or that would fill a small home.

    needed: bytes. A home counts as small on a machine with a scheduler, if its quota is not known and neither HF_HOME
    nor a folder of the cache was set by the user.

    Raises:
        MachineFault: the file system or the quota has no room.
        Mistake: it would fill a small home.
    """
    there = existing(folder)
    free, quota = shutil.disk_usage(there).free, quota_left(there) * MB
    left = min(free, quota)
    if needed > left:
        limit = "free" if left == free else "left of your quota"
        raise MachineFault(f"{folder} would get {shown(needed)}, and {shown(left)} are {limit} there: {ADVICE}")
    chosen = any(os.environ.get(name) for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"))
    cluster = any(map(shutil.which, ("sbatch", "qsub")))
    at_home = there.is_relative_to(Path.home().resolve())
    if cluster and at_home and quota == float("inf") and not chosen and needed > _SHARE * SMALL_HOME:
        raise Mistake(
            f"{folder} would get {shown(needed)}, and it lies in your home, which is small on most clusters "
            f"({SMALL_HOME / GB:.0f} GB at Boston University): {ADVICE}"
        )


ADVICE = (
    "let the hub's cache lie on scratch or project space. Put this into slurm/site.sh, and source it before you give "
    "the command again: export HF_HOME=/projectnb/PROJECT/$USER/huggingface"
)


def shown(count: float) -> str:
    """Bytes as text: '1.5 GB', or in MB."""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.1f} MB"


def existing(folder: Path) -> Path:
    """A folder without symbolic links, or the nearest one above it that exists."""
    return next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())


def quota_left(folder: Path) -> float:
    """The MB that a user may still write on the disk of a folder, by the command `quota`; infinity if it does not tell.

    Of the line "FILESYSTEM blocks quota limit ..." in blocks of 1 KiB the smaller limit that is not 0 counts.
    """
    if shutil.which("quota") is None:
        return float("inf")
    mount = next(p for p in (folder.resolve(), *folder.resolve().parents) if os.path.ismount(p))
    try:
        line = ["quota", "--no-wrap", f"--filesystem={mount}"]
        text = subprocess.run(line, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.TimeoutExpired):
        return float("inf")
    rows = re.findall(r"^\s*\S+\s+(\d+)\*?\s+(\d+)\s+(\d+)\b", text, re.M)
    limits = [(int(used), min((int(x) for x in both if int(x)), default=None)) for used, *both in rows]
    return min(((limit - used) / 1024 for used, limit in limits if limit is not None), default=float("inf"))
