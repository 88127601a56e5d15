"""Where an overlay is measured: three hosts, one of them behind a wire that can be made bad.

      direct    alpha --wire-- bravo, charlie                      one LAN
      relayed   alpha --wire-- rod ---- bravo, charlie             two LANs; only rod is on both, and forwards no IP

alpha sends to bravo, and to charlie for the traffic beside.  Every measuring of an overlay gets new ground, so that
nothing is left of what was there before.  TCP is cubic everywhere, as Debian has it: also the TCP that an overlay makes
itself, whatever this machine's default is.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from joined_lans import JoinedLans
from topology import Host, Lab
from wire import Wire

SETTINGS = {"node": {"nice": 0}}  # as the others run
RELAYED = {"alpha": "a", "rod": "ab", "bravo": "b", "charlie": "b"}


class Ground:
    """One LAN, with alpha and whoever else is named near on the near side of the wire."""

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
        """By route, for kernels keep namespaces from choosing a default that the machine's owner has not allowed."""
        for host in self.hosts.values():
            for number in range(len(host.lans)):
                device = f"eth{number}"
                (route,) = host.run("ip", "-4", "route", "show", "dev", device).stdout.splitlines()
                host.run("ip", "route", "replace", *route.split(), "dev", device, "congctl", "cubic")

    def close(self) -> None:
        """End all programs, and the namespaces too: a run makes hundreds."""
        self.wire.close()
        self.lab.close()
        for namespace in Path("/run/netns").glob(f"{self.lab.number}-*"):
            subprocess.run(["ip", "netns", "delete", namespace.name], check=True)


class RelayedGround(Ground):
    """Two LANs and Conflux on them, which alone joins them; the wire is between alpha and the relay."""

    def __init__(self, *, seed: int) -> None:
        self.lab = Lab(SETTINGS)
        self.joined = JoinedLans(self.lab, RELAYED)
        self.hosts = self.joined.hosts
        self._use_cubic()
        alpha, rod = self.hosts["alpha"], self.hosts["rod"]
        self.wire = Wire(alpha.lans[0], near=[alpha], far=[rod], seed=seed)
