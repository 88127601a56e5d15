"""Boards as a report describes them, read from copies of their files."""

from pathlib import Path

import pytest

from conflux.bench import machine

PI5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "".join(
        f"processor\t: {index}\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
        for index in range(4)
    )
    + "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/meminfo": "MemTotal:        8245616 kB\nMemFree:   1 kB\n",
    "proc/loadavg": "0.08 0.03 0.01 1/150 900\n",
    "proc/sys/kernel/osrelease": "6.12.47+rpt-rpi-2712\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2400000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48350\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}
PI4_CPU = (
    "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"
    "processor\t: 1\nFeatures\t: fp asimd evtstrm crc32 cpuid\n\n"
)
PC_CPU = (
    "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz\ncpu MHz\t\t: 800.041\n"
    "flags\t\t: fpu sse4_2 aes pclmulqdq avx2 hypervisor\n\n"
)


def tree(path: Path, files: dict[str, str]) -> Path:
    """Write files below a directory, as a board has them below /."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def test_a_pi_is_named_by_its_device_tree(tmp_path):
    facts = machine.describe(tree(tmp_path, PI5))
    assert facts["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["cpu"] == "Cortex-A76"
    assert facts["cpu_count"] == 4
    assert all(facts["cpu_features"].values())
    assert facts["kernel"] == "6.12.47+rpt-rpi-2712"
    assert facts["system"] == "Debian GNU/Linux 13 (trixie)"
    assert facts["clock_source"] == "arch_sys_counter"
    assert (facts["governor"], facts["cpu_mhz_min"], facts["cpu_mhz_max"]) == ("ondemand", 1500, 2400)
    assert facts["memory_mb"] == 8444
    assert not facts["virtual"]


def test_a_pis_condition_is_read(tmp_path):
    now = machine.condition(tree(tmp_path, PI5))
    assert now["temperature_c"] == 48.35
    assert now["cpu_mhz"] == 1500
    assert now["load_average"] == 0.08
    assert now["throttling"] == []


def test_missing_instructions_are_named(tmp_path):
    features = machine.describe(tree(tmp_path, {**PI5, "proc/cpuinfo": PI4_CPU}))["cpu_features"]
    assert features == {"aes": False, "carry-less multiply": False, "crc32c": True, "sha2": False, "vector": True}


def test_a_pc_is_named_by_its_firmware(tmp_path):
    dmi = {"sys/class/dmi/id/sys_vendor": "LENOVO\n", "sys/class/dmi/id/product_name": "20KH\n"}
    facts = machine.describe(tree(tmp_path, {"proc/cpuinfo": PC_CPU, **dmi}))
    assert facts["board"] == "LENOVO 20KH"
    assert facts["cpu"].startswith("Intel(R) Core(TM) i5")
    assert facts["virtual"]
    assert facts["cpu_features"]["carry-less multiply"]
    assert not facts["cpu_features"]["sha2"]
    assert machine.condition(tmp_path)["cpu_mhz"] == 800


def test_a_firmware_with_placeholders_names_no_board(tmp_path):
    dmi = {"sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.\n", "sys/class/dmi/id/product_name": "None\n"}
    assert machine.board(tree(tmp_path, {"proc/cpuinfo": PC_CPU, **dmi})).startswith("Intel(R)")


def test_a_core_without_a_name_is_shown_by_its_numbers(tmp_path):
    cpu = "processor\t: 0\nFeatures\t: asimd\nCPU implementer\t: 0x61\nCPU part\t: 0xd08\n"
    assert machine.describe(tree(tmp_path, {"proc/cpuinfo": cpu}))["cpu"] == "ARM implementer 0x61, part 0xd08"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("0", []),
        ("50005", ["under-voltage", "throttled"]),
        ("50000", ["under-voltage since boot", "throttled since boot"]),
        ("0x80008", ["soft temperature limit"]),
        ("nonsense", None),
    ],
)
def test_limits_of_a_pis_firmware_are_reported(tmp_path, word, said):
    tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": word})
    assert machine.throttling(tmp_path) == said


def test_a_firmware_with_an_address_is_found(tmp_path):
    tree(tmp_path, {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "1"})
    assert machine.throttling(tmp_path) == ["under-voltage"]


def test_throttling_of_a_pc_is_counted(tmp_path):
    count = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count"
    tree(tmp_path, {str(count.relative_to(tmp_path)): "7\n"})
    assert machine.throttling(tmp_path) == ["throttled 7 times since boot"]
    count.write_text("0\n")
    assert machine.throttling(tmp_path) == []


def test_the_thermal_zone_of_the_processor_is_preferred(tmp_path):
    zones = {
        "sys/class/thermal/thermal_zone0/type": "acpitz",
        "sys/class/thermal/thermal_zone0/temp": "27800",
        "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone1/temp": "61000",
    }
    assert machine.temperature_c(tree(tmp_path, zones)) == 61
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").unlink()
    assert machine.temperature_c(tmp_path) == 27.8


def test_machine_without_any_file_is_still_described(tmp_path):
    facts, now = machine.describe(tmp_path), machine.condition(tmp_path)
    assert facts["board"]
    assert facts["cpu_features"] is None
    assert now["temperature_c"] is None
    assert now["throttling"] is None


def test_this_machine_has_the_versions_that_figures_depend_on():
    facts = machine.describe()
    assert facts["kernel"]
    assert facts["versions"]["openssl"].startswith("OpenSSL 3") or "SSL" in facts["versions"]["openssl"]
    assert facts["versions"]["python"].startswith("CPython 3.")
