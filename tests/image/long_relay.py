"""Two boards that do not hear each other, and one between them with two cables: it relays.

    attic ─┐                                  ┌─ cellar
           ├ segment of the founder ─ stairs ─┤ a segment of its own
    founder┘                   eth0 ─┘ └─ eth1

All three join on the founder's segment; then cellar is replugged.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from image.desk import BOARD
from image.disk import flashed
from image.site import DEAD, FIRST_BOOT_S, READY, UPLINK, Site, failed_units, wait_for_silence

BOARDS = {"attic": ("attic",), "cellar": ("cellar",), "stairs": ("stairs", "stairs-2")}
REPLUGGED = (("attic", "stairs", UPLINK), ("cellar", "stairs-2"))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site([port for ports in BOARDS.values() for port in ports], name="relay")
    try:
        image = flashed(BOARD)
        site.switch.partition(("attic", "stairs", "cellar", UPLINK), ("stairs-2",))
        for name, ports in BOARDS.items():
            site.machine(name, site.disk(image, name, site.card(name)), *ports).power_on()
        for name in BOARDS:
            site.machines[name].expect(READY, within_s=2 * FIRST_BOOT_S, never=DEAD)
        yield site
    finally:
        site.close()


def test_board_with_two_cables_relays_between_their_segments(site: Site) -> None:
    attic, stairs = site.shell("attic"), site.shell("stairs")
    attic.try_until("conflux", "ping", "cellar", "-c", "1", within_s=180)
    site.switch.partition(*REPLUGGED)
    attic.try_until("conflux", "ping", "cellar", "-c", "3", within_s=300)
    (row,) = [row for row in attic.json("conflux", "status", "--json")["nodes"] if row["name"] == "cellar"]
    assert row["by"] == ["stairs"]
    assert row["reach"] == "relay"
    assert stairs.json("conflux", "status", "--json")["relays"]
    wait_for_silence(attic, stairs, within_s=180)
    assert failed_units(stairs) == []
    cut = site.switch.counts()["cellar"]["drops"]["cut"]
    assert cut > 0  # frames of the other segment were sent, and did not come here
