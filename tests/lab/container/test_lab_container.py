"""The container image of build/oci: what it is, and two containers of it as a network.  No container daemon is here.

make oci        builds the image, then runs this

umoci unpacks the image of this processor; runc runs it on a host of a lab, with /dev/net/tun handed in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import cgroup
from rig.enter import STATE, TREE
from rig.topology import Host, Lab, LabFailure, wait_for

import conflux

OCI = TREE / "build" / "oci"
ARCH = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
EMULATORS = {"arm64": "qemu-aarch64-static"}
PROGRAM = ["/usr/bin/conflux"]
UNPACKED_MB_MAX = 110
TUN = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o666, "uid": 0, "gid": 0}
TUN_ALLOWED = {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}
# As conflux.service has them.
CAPABILITIES = ["CAP_NET_ADMIN", "CAP_SETPCAP", "CAP_SYS_NICE"]


@pytest.fixture(scope="module")
def unpacked() -> Path:
    """Unpack the image for this processor; return umoci's bundle."""
    assert OCI.exists(), "there is no build/oci: make oci"
    return bundle(ARCH)


def bundle(arch: str) -> Path:
    """Unpack the image for a processor; return umoci's bundle."""
    folder = STATE / f"bundle-{arch}"
    if not folder.exists():
        image = f"{OCI}:{conflux.__version__}-{arch}"
        subprocess.run(["umoci", "unpack", "--image", image, folder], check=True, capture_output=True)
    return folder


def inspected(arch: str) -> dict[str, Any]:
    """Return what skopeo says of the image that a host of this processor takes from the index."""
    command = ["skopeo", "inspect", "--override-arch", arch, "--config", f"oci:{OCI}:{conflux.__version__}"]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


class Container:
    """A container of the image on a host of a lab."""

    def __init__(self, host: Host, unpacked: Path) -> None:
        self.host = host
        self.state = host.state / "state"
        self.state.mkdir(mode=0o700)
        self.bundle = host.state / "bundle"
        self.bundle.mkdir()
        self.group = cgroup.new(host.name)
        self._config: dict[str, Any] = json.loads((unpacked / "config.json").read_text())
        self._config["root"] = {"path": str(unpacked / "rootfs"), "readonly": True}

    def prepare(self, *arguments: str) -> tuple[str, ...]:
        """Write what runc is told, and return the command that runs `conflux ARGUMENTS` in a container."""
        name = f"{self.host.name}-{os.urandom(4).hex()}"
        config = json.loads(json.dumps(self._config))
        config["process"] |= {"terminal": False, "args": [*PROGRAM, *arguments]}
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/var/lib/conflux"]
        config["mounts"] += [
            {"destination": "/var/lib/conflux", "type": "bind", "source": str(self.state), "options": ["rbind", "rw"]},
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=755"]},
        ]
        linux = config["linux"]
        linux["devices"] = [TUN]
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}, TUN_ALLOWED]}
        linux["cgroupsPath"] = f"/{self.group.name}/{name}"
        spaces = [space for space in linux["namespaces"] if space["type"] not in ("network", "user", "cgroup")]
        linux["namespaces"] = [*spaces, {"type": "network", "path": f"/run/netns/{self.host.namespace}"}]
        folder = self.bundle / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        return ("runc", "--root", str(STATE / "runc"), "run", "--bundle", str(folder), name)

    def conflux(self, *arguments: str) -> str:
        """Run one `conflux` command to its end in a container of its own; return what it printed."""
        return self.host.run(*self.prepare(*arguments), within_s=60).stdout

    def ask(self, *arguments: str) -> str:
        """Run one `conflux` command to its end in the daemon's container, as `podman exec` does."""
        words = ("runc", "--root", str(STATE / "runc"), "exec", self.name, *PROGRAM, *arguments)
        return self.host.run(*words, within_s=60).stdout

    def up(self) -> None:
        """Run the daemon as the image starts it; return when it is up."""
        command = self.prepare("up", "--foreground")
        self.name = command[-1]
        self.daemon = self.host.spawn("daemon", *command)
        said = f"up: {self.host.name} in realm"
        wait_for(lambda: said in self.daemon.output(), said, within_s=20, logs=(self.daemon,))

    def close(self) -> None:
        """Remove its control group."""
        cgroup.remove(self.group)


def test_a_host_takes_the_image_of_its_processor() -> None:
    for arch in {ARCH, "arm64"}:
        config = inspected(arch)
        assert config["architecture"] == arch
        assert config["config"]["Entrypoint"] == PROGRAM
        assert config["config"]["Volumes"] == {"/var/lib/conflux": {}}
        assert config["config"]["Labels"]["org.opencontainers.image.version"] == conflux.__version__


def test_an_image_has_no_shell_and_less_than_110_mb(unpacked: Path) -> None:
    root = unpacked / "rootfs"
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < UNPACKED_MB_MAX * 1e6
    assert [name for name in ("sh", "bash", "dash", "apt", "dpkg", "perl") if (root / "usr/bin" / name).exists()] == []
    sources = {path for path in files if path.suffix == ".py" and path.is_relative_to(root / "usr/lib/conflux")}
    assert sources
    compiled = {path.name.split(".")[0] for path in (root / "usr/lib/conflux").rglob("*.pyc")}
    assert {path.stem for path in sources} <= compiled


def test_no_file_of_an_image_has_rights_that_it_needs_not(unpacked: Path) -> None:
    modes = {path: path.lstat().st_mode for path in (unpacked / "rootfs").rglob("*") if not path.is_symlink()}
    assert [path for path, mode in modes.items() if mode & 0o6000] == []
    # What all may write in is a folder like /tmp, where each owns what it made.
    assert [path for path, mode in modes.items() if mode & 0o002 and not mode & 0o1000] == []


@pytest.fixture(scope="module")
def containers(unpacked: Path) -> Iterator[tuple[Container, Container]]:
    """Two hosts of one LAN, each with a container to come."""
    lab = Lab()
    lan = lab.lan()
    pair = (Container(lab.host("attic", lan), unpacked), Container(lab.host("cellar", lan), unpacked))
    try:
        pair[0].conflux("--version")
    except LabFailure as failed:
        if not any(word in str(failed) for word in ("cgroup", "permitted", "bpf", "not supported")):
            raise
        pytest.skip(f"runc cannot run a container here: {str(failed).splitlines()[-1]}")
    yield pair
    lab.close()
    for container in pair:
        container.close()


def test_two_containers_are_a_network(containers: tuple[Container, Container]) -> None:
    attic, cellar = containers
    attic.conflux("realm", "create", "home", "--node", "attic")
    attic.up()
    token = attic.ask("realm", "invite", "--quiet").split()[-1]
    cellar.conflux("join", token, "--name", "cellar")
    cellar.up()
    said = cellar.ask("ping", "attic", "-c", "2")
    assert "2 answered" in said
    assert "native" in cellar.ask("status")


def test_a_program_for_arm64_runs_emulated() -> None:
    if ARCH == "arm64":
        pytest.skip("this machine is arm64: nothing to emulate")
    emulator = shutil.which(EMULATORS["arm64"])
    assert emulator, "apt-get install qemu-user-static"
    root = bundle("arm64") / "rootfs"
    python = root / "usr/bin/python3.13"
    site = root / "usr/lib/conflux/lib/python3.13/site-packages"
    # With the image's libraries and packages, and not this machine's.
    places = ("-E", f"PYTHONHOME={root}/usr", "-E", f"PYTHONPATH={site}")
    words = [emulator, "-L", str(root), *places, str(python), "-B", "-c"]
    program = "import sys; sys.argv = ['conflux', '--version']; from conflux.datapath.native import _engine; "
    program += "from conflux.cli.entry import main; sys.exit(main())"
    command = [*words, program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == f"conflux {conflux.__version__}\n", done.stderr
