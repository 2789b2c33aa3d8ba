"""What a result must say about the machine it was measured on."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine of one sitting; `load` is the one-minute load average before the first run."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    load: float

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB; {self.system}; "
            f"Python {self.python}; load average {self.load:.2f} before the first run"
        )

    def to_dict(self) -> dict[str, str | int | float]:
        return asdict(self)


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def this_machine() -> Machine:
    """Reads the machine's description from the system (Linux; elsewhere what the platform module knows)."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        described = {key.strip(): value.strip() for key, value in fields.items()}
        flags = set(described.get("flags", "").split())
        widest = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "no AVX")
        cpu = f"{described.get('model name', cpu)} ({widest})"
    return Machine(
        cpu=cpu,
        cores=usable_cores(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=os.getloadavg()[0],
    )


def available_memory_bytes() -> int | None:
    """Memory that can be had without swapping, or None where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


@dataclass(frozen=True, kw_only=True)
class CpuClock:
    """CPU seconds used so far: by the whole machine (stolen time too) and by this process, all its threads."""

    machine_seconds: float
    own_seconds: float
    wall_seconds: float

    @classmethod
    def now(cls) -> CpuClock:
        """Reads the clocks; the machine's is 0 where there is no /proc/stat."""
        times = os.times()
        stat = Path("/proc/stat")
        machine_seconds = 0.0
        if stat.exists():
            # user nice system idle iowait irq softirq steal: all but idle and iowait is time not free for a
            # benchmark
            ticks = [int(field) for field in stat.read_text().splitlines()[0].split()[1:9]]
            machine_seconds = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return cls(
            machine_seconds=machine_seconds,
            own_seconds=times.user + times.system,
            wall_seconds=times.elapsed,
        )

    def others_share_since(self, earlier: CpuClock, cores: int) -> float:
        """Share of the machine's CPU time since `earlier` that was neither idle nor this process's."""
        wall = (self.wall_seconds - earlier.wall_seconds) * cores
        if wall <= 0:
            return 0.0
        busy = self.machine_seconds - earlier.machine_seconds
        own = self.own_seconds - earlier.own_seconds
        return min(max((busy - own) / wall, 0.0), 1.0)


def wait_until_idle(*, limit: float, timeout_seconds: float, sample_seconds: float = 1.0) -> float:
    """Waits until the machine is busy for less than `limit` of a sample, or the time is up.

    Returns:
        The share of the machine's CPU time that was in use in the last sample.
    """
    cores = usable_cores()
    deadline = time.monotonic() + timeout_seconds
    while True:
        before = CpuClock.now()
        time.sleep(sample_seconds)
        share = CpuClock.now().others_share_since(before, cores)
        if share < limit or time.monotonic() >= deadline:
            return share
