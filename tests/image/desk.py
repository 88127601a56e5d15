"""The boards that most tests share: flashed, switched on for the first time, and joined.

attic     alone on the machine: how long a first boot takes
cellar    joins as attic did
garage    its card has mistakes and no invitation
"""

from __future__ import annotations

from image.disk import flashed
from image.site import DEAD, FIRST_BOOT_S, READY, Site
from rig.enter import add_figures

BOARD = "qemu-virt"
FAULT = r"conflux-board: fault: (.*)"
JOINING = ("attic", "cellar")
WRONG_CARD = """\
[board]
name = "garage"
nmae = "typing error"
time_zone = "Europe/Atlantis"
ssh_key = "{key}"

[conflux.stream]
idle_timeout = "soon"
"""


class Desk(Site):
    """A site with three boards of the image that a user flashes."""

    def __init__(self) -> None:
        super().__init__((*JOINING, "garage"))
        self.image = flashed(BOARD)
        for name in JOINING:
            self.machine(name, self.disk(self.image, name, self.card(name)))
        self.machine("garage", self.disk(self.image, "garage", WRONG_CARD.format(key=self.public_key)))

    def first_boots(self) -> None:
        """Switch the boards on: attic first, by itself, and note how long it takes."""
        attic, *others = self.machines.values()
        attic.power_on()
        attic.expect(READY, within_s=FIRST_BOOT_S, never=DEAD)
        figures = {"first_boot_s": round(attic.on_for(), 1), "first_boot_waited_s": round(attic.waited(), 1)}
        add_figures("image.json", figures)
        for machine in others:
            machine.power_on()
        for name in JOINING[1:]:
            self.machines[name].expect(READY, within_s=2 * FIRST_BOOT_S, never=DEAD)
        self.machines["garage"].expect(FAULT, within_s=FIRST_BOOT_S, never=DEAD)
