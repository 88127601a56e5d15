"""Measures a process and a wire from outside, without asking the process.

The claims of this project are about what is *not* there (sockets, bytes, memory).  So they are read from the kernel,
never from the daemon's report about itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import statistics
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

MDNS_PORT = 5353  # of the control channel; every other UDP socket of the daemon is data plane


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in MB (10^6 bytes).  pss: a shared page counts in parts for each process that has it.

    allocated: memory without a file behind it: heap, stacks and pools.
    """

    rss_mb: float
    pss_mb: float
    allocated_mb: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """The traffic of a device since it was made."""

    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int

    def since(self, earlier: Traffic) -> Traffic:
        """Return what passed since an earlier reading."""
        return Traffic(
            self.rx_bytes - earlier.rx_bytes,
            self.tx_bytes - earlier.tx_bytes,
            self.rx_packets - earlier.rx_packets,
            self.tx_packets - earlier.tx_packets,
        )


def data_plane_sockets(pid: int) -> list[str]:
    """Return the local addresses of the process's UDP sockets that are not mDNS, as the kernel prints them."""
    inodes = _socket_inodes(pid)
    found = []
    for table in ("udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            local, inode = fields[1], fields[9]
            if inode in inodes and int(local.rsplit(":", 1)[1], 16) != MDNS_PORT:
                found.append(local)
    return found


def has_unix_connection(pid: int) -> bool:
    """Return whether the process is connected to a unix socket."""
    inodes = _socket_inodes(pid)
    rows = (line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:])
    return any(row[5] == "03" and row[6] in inodes for row in rows)  # 03: SS_CONNECTED


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            target = os.readlink(entry.path)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes


def memory(pid: int) -> Memory:
    """Return the memory of a process."""
    kilobytes = _rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return Memory(rss_mb=_mb(kilobytes["Rss"]), pss_mb=_mb(kilobytes["Pss"]), allocated_mb=_mb(kilobytes["Anonymous"]))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_parts(pid: int) -> dict[str, float]:
    """Return the parts of the process's memory (PSS, MB): the heap, and each mapped file by its package."""
    parts: dict[str, float] = defaultdict(float)
    part = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)", line):
            part = _part(match[1])
        elif line.startswith("Pss:"):
            parts[part] += _mb(int(line.split()[1]))
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def _part(path: str) -> str:
    if not path.startswith("/"):
        return "heap and stacks (Python objects)"
    if match := re.search(r"/site-packages/([^/]+)", path):
        return match[1].removesuffix(".libs").split(".")[0]
    if "/conflux/" in path:
        return "conflux"
    return re.sub(r"[-.0-9]*\.so[.0-9]*$", "", Path(path).name)


def _rollup(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def _mb(kilobytes: int) -> float:
    return kilobytes * 1024 / 1e6


def processor() -> str:
    """Return the processor's model name."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}).stdout
    name = re.search(r"^Model name: +(.*)$", text, re.MULTILINE)
    return name[1] if name else platform.machine()


def machine() -> str:
    """Describe this machine in a few words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"


def cpu_s(pid: int) -> float:
    """Return the processor seconds a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def traffic(ip_json: str) -> Traffic:
    """Read the output of `ip -json -s link` about one device."""
    stats = json.loads(ip_json)[0]["stats64"]
    return Traffic(
        rx_bytes=stats["rx"]["bytes"],
        tx_bytes=stats["tx"]["bytes"],
        rx_packets=stats["rx"]["packets"],
        tx_packets=stats["tx"]["packets"],
    )


@dataclass(frozen=True, slots=True)
class Count:
    """Packets and bytes as nftables counted them."""

    packets: int
    bytes: int


def count(nft_json: str) -> Count:
    """Add up the counters in the output of `nft -j list`."""
    packets = octets = 0
    for item in json.loads(nft_json)["nftables"]:
        for expression in item.get("rule", {}).get("expr", ()):
            if "counter" in expression:
                packets += expression["counter"]["packets"]
                octets += expression["counter"]["bytes"]
    return Count(packets, octets)


@dataclass(frozen=True, slots=True)
class Pings:
    """The report of `ping`."""

    sent: int
    received: int
    times_ms: tuple[float, ...]  # one per answer
    numbers: tuple[int, ...]  # icmp_seq of each answer, as they came

    @property
    def lost(self) -> int:
        """How many packets had no answer."""
        return self.sent - self.received

    @property
    def median_ms(self) -> float:
        """The median round trip."""
        return statistics.median(self.times_ms)


def pings(output: str) -> Pings:
    """Read ping's output."""
    summary = re.search(r"(\d+) packets transmitted, (\d+) received", output)
    if summary is None:
        raise ValueError(f"not the output of ping: {output!r}")
    times = tuple(float(time) for time in re.findall(r"time=([\d.]+) ms", output))
    numbers = tuple(int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output))
    return Pings(sent=int(summary[1]), received=int(summary[2]), times_ms=times, numbers=numbers)


def iperf3_mbit(output: str) -> float:
    """Read the rate at the receiving end from `iperf3 --json`, in Mbit/s."""
    end = json.loads(output)["end"]
    rate: float = (end.get("sum_received") or end["sum"])["bits_per_second"]
    return rate / 1e6


def established(pid: int) -> int:
    """Return the number of established TCP connections in the network namespace of a process."""
    count = 0
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        count += sum(row.split()[3] == "01" for row in rows)
    return count
