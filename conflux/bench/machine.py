"""What machine this is and in what condition, read from the kernel's own files.

root is where the file system begins, so that a board can be described from a copy of its files.  A fact that cannot be
read is None: a report is of use without it.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conflux import __version__

Facts = dict[str, Any]

_ROOT: Final = Path("/")
_READ_CHARS_MAX: Final = 1 << 20

# The names of ARM's cores: /proc/cpuinfo has only their numbers ("CPU part").
_ARM: Final = "0x41"
_ARM_CORES: Final = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd49": "Neoverse-N2",
}

# Instructions for the ciphers, the checksum of SCTP and the hashes, in the kernel's words on ARM and on x86.
_FEATURES: Final = {
    "aes": {"aes"},
    "carry-less multiply": {"pmull", "pclmulqdq"},
    "crc32c": {"crc32", "sse4_2"},
    "sha2": {"sha2", "sha_ni"},
    "vector": {"asimd", "avx2"},
}

# Power and heat as a Raspberry Pi's firmware reports them: bits of get_throttled.
_THROTTLED: Final = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT: Final = 16  # the same bits, this much higher: at some time since boot

_PLACEHOLDERS: Final = frozenset({"", "none", "default string", "to be filled by o.e.m.", "system product name"})


def describe(root: Path = _ROOT) -> Facts:
    """Return the facts that do not change while a bench runs."""
    cpu = _cpuinfo(root)
    return {
        "board": board(root),
        "cpu": cpu["name"],
        "cpu_count": cpu["count"],
        "cpu_features": cpu["features"],
        "virtual": cpu["virtual"],
        "memory_mb": _memory_mb(root),
        "kernel": _text(root / "proc/sys/kernel/osrelease"),
        "architecture": platform.machine(),
        "page_bytes": mmap.PAGESIZE,
        "system": _system(root),
        "clock_source": _text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "governor": _text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "cpu_mhz_min": _mhz(root, "cpuinfo_min_freq"),
        "cpu_mhz_max": _mhz(root, "cpuinfo_max_freq"),
        "versions": _versions(root),
    }


def condition(root: Path = _ROOT) -> Facts:
    """Return the facts that change: temperature, frequency, other load."""
    load = (_text(root / "proc/loadavg") or "").split()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "temperature_c": temperature_c(root),
        "cpu_mhz": _mhz(root, "scaling_cur_freq") or _cpuinfo(root)["mhz"],
        "load_average": float(load[0]) if load else None,
        "throttling": throttling(root),
    }


def board(root: Path) -> str:
    """Return the board's name from its device tree or the PC's firmware; else its processor's."""
    if model := _text(root / "proc/device-tree/model") or _text(root / "sys/firmware/devicetree/base/model"):
        return model
    words = [_text(root / "sys/class/dmi/id" / name) or "" for name in ("sys_vendor", "product_name")]
    known = [word for word in words if word.lower() not in _PLACEHOLDERS]
    return " ".join(known) or _cpuinfo(root)["name"] or platform.machine()


def temperature_c(root: Path) -> float | None:
    """Return the processor's temperature, in °C; that of the first zone if none is marked as the processor's."""
    zones = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        kind, value = _text(zone / "type") or "", _number(zone / "temp")
        if value is not None:
            zones.append((not re.search(r"cpu|soc|x86_pkg", kind, re.IGNORECASE), value / 1000))
    for monitor in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        value = _number(monitor / "temp1_input")
        if value is not None and _text(monitor / "name") in ("coretemp", "k10temp", "zenpower"):
            zones.append((False, value / 1000))
    return min(zones, key=lambda zone: zone[0])[1] if zones else None


def throttling(root: Path) -> list[str] | None:
    """Return what limits the processor's speed, now or since boot; None if the machine does not report it."""
    # Under "soc" on a Pi 4, and under "soc@" with an address where the device tree gives it one.
    found = sorted((root / "sys/devices/platform").glob("soc*/soc*:firmware/get_throttled"))
    firmware = _text(found[0]) if found else None
    if firmware is not None and re.fullmatch(r"(0x)?[0-9a-fA-F]+", firmware):
        bits = int(firmware, 16)
        now = [text for bit, text in _THROTTLED.items() if bits >> bit & 1]
        before = [
            f"{text} since boot"
            for bit, text in _THROTTLED.items()
            if bits >> (bit + _SINCE_BOOT) & 1 and text not in now
        ]
        return now + before
    count = _number(root / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
    if count is not None:
        return [f"throttled {count:.0f} times since boot"] if count else []
    return None


def _cpuinfo(root: Path) -> Facts:
    """Return what /proc/cpuinfo says of the first processor and how many there are."""
    fields: dict[str, str] = {}
    count = 0
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        name = name.strip()
        count += name == "processor"
        fields.setdefault(name, value.strip())
    words = set((fields.get("flags") or fields.get("Features") or "").split())
    model = fields.get("model name")
    if model is None and (part := fields.get("CPU part")):
        own = _ARM_CORES.get(part) if fields.get("CPU implementer") == _ARM else None
        model = own or f"ARM implementer {fields.get('CPU implementer')}, part {part}"
    mhz = fields.get("cpu MHz", "")
    return {
        "name": model,
        "count": count or None,
        "features": {feature: bool(words & any_of) for feature, any_of in _FEATURES.items()} if words else None,
        "virtual": "hypervisor" in words,
        "mhz": round(float(mhz)) if re.fullmatch(r"\d+(\.\d+)?", mhz) else None,
    }


def _memory_mb(root: Path) -> int | None:
    found = re.search(r"^MemTotal: +(\d+) kB", _text(root / "proc/meminfo") or "", re.MULTILINE)
    return round(int(found[1]) * 1024 / 1e6) if found else None


def _system(root: Path) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release") or "", re.MULTILINE)
    return found[1] if found else None


def _mhz(root: Path, name: str) -> int | None:
    kilohertz = _number(root / "sys/devices/system/cpu/cpu0/cpufreq" / name)
    return None if kilohertz is None else round(kilohertz / 1000)


def _versions(root: Path) -> Facts:
    """Return the versions that figures depend on.

    openssl: the libcrypto under frames and records.  openssl_handshake: the one in `cryptography`.
    """
    from cryptography.hazmat.backends.openssl import backend

    return {
        "conflux": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": _loaded_libcrypto(root) or ssl.OPENSSL_VERSION,
        "openssl_handshake": backend.openssl_version_text(),
    }


def _loaded_libcrypto(root: Path) -> str | None:
    """Return the version of the libcrypto that the compiled code of this process is linked with."""
    found = re.search(r" (/\S+/libcrypto\.so[.\d]*)$", _text(root / "proc/self/maps") or "", re.MULTILINE)
    if not found:
        return None
    try:
        version = ctypes.CDLL(found[1]).OpenSSL_version
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_char_p
    said: bytes = version(0)
    return said.decode()


def _text(path: Path) -> str | None:
    """Return a kernel file's text, stripped; None if it cannot be read or is empty."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_READ_CHARS_MAX).strip("\0 \n") or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    return float(text) if text is not None and re.fullmatch(r"-?\d+", text) else None
