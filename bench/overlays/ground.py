"""The hosts that an overlay is measured on: three, one of them behind a wire that can be impaired.

      direct    alpha --wire-- bravo, charlie                      one LAN
      between,  alpha --wire-- rod ---- bravo, charlie             two LANs; only rod is on both, and forwards no IP
      relayed                                                      the same, in a realm of Conflux

alpha sends to bravo, and to charlie for traffic beside.  Each overlay gets a new ground in each round, so nothing is
left of the one before.  TCP is cubic everywhere, as Debian has it, whatever this machine's default is.  That includes
the TCP of an overlay itself.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from overlays.wire import Wire
from rig.joined_lans import JoinedLans
from rig.topology import Host, Lab

SETTINGS = {"node": {"nice": 0}}  # the other overlays run at 0 too
RELAYED = {"alpha": "a", "rod": "ab", "bravo": "b", "charlie": "b"}


class Ground:
    """One LAN; the hosts named near are on the near side of the wire."""

    def __init__(self, *, seed: int, near: tuple[str, ...] = ("alpha",)) -> None:
        self.lab = Lab(SETTINGS)
        lan = self.lab.lan()
        names = dict.fromkeys((*near, "bravo", "charlie"))
        self.hosts = {name: self.lab.host(name, lan) for name in names}
        self._use_cubic()
        self.wire = Wire(
            lan,
            near=[self.hosts[name] for name in near],
            far=[host for name, host in self.hosts.items() if name not in near],
            seed=seed,
        )

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def _use_cubic(self) -> None:
        """Set cubic by route: a namespace may not choose a default that the machine does not allow."""
        for host in self.hosts.values():
            for number in range(len(host.lans)):
                device = f"eth{number}"
                (route,) = host.run("ip", "-4", "route", "show", "dev", device).stdout.splitlines()
                host.run("ip", "route", "replace", *route.split(), "dev", device, "congctl", "cubic")

    def close(self) -> None:
        """End all programs and remove the namespaces: a run makes hundreds."""
        self.wire.close()
        self.lab.close()
        for namespace in Path("/run/netns").glob(f"{self.lab.number}-*"):
            subprocess.run(["ip", "netns", "delete", namespace.name], check=True)


class BetweenGround(Ground):
    """Two LANs that only rod is on; the wire is between alpha and rod."""

    def __init__(self, *, seed: int) -> None:
        self.lab = Lab(SETTINGS)
        lans = {name: self.lab.lan(name) for name in "ab"}
        self.hosts = {name: self.lab.host(name, *(lans[lan] for lan in on)) for name, on in RELAYED.items()}
        self._use_cubic()
        self.wire = Wire(lans["a"], near=[self.hosts["alpha"]], far=[self.hosts["rod"]], seed=seed)


class RelayedGround(Ground):
    """Two LANs that only Conflux bridges; the wire is between alpha and the relay."""

    def __init__(self, *, seed: int) -> None:
        self.lab = Lab(SETTINGS)
        self.joined = JoinedLans(self.lab, RELAYED)
        self.hosts = self.joined.hosts
        self._use_cubic()
        alpha, rod = self.hosts["alpha"], self.hosts["rod"]
        self.wire = Wire(alpha.lans[0], near=[alpha], far=[rod], seed=seed)
