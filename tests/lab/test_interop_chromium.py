"""A link against an unmodified headless Chromium: a page on localhost, RTCPeerConnection and data channels.

this process: RtcCarrier or  ◄── chromium.py: SDP ──►  chromium: chromium_peer.html, echoes
              NativeCarrier
                  └────────── ICE, DTLS, SCTP, data channels ──────────┘
"""

from __future__ import annotations

import pytest
from rig.chromium import Page, page_in_role
from rig.interop import (
    LINK,
    OURS,
    SIZES,
    TETHER,
    Ours,
    description_of,
    digest,
    exchange,
    give_address,
    heard,
    our_side,
    pattern,
    sdp_of,
)

from conflux.carrier.interface import (
    CarrierEnd,
    Closed,
    Connect,
    Describe,
    Described,
    Description,
    Disconnect,
    Opened,
    OpenTether,
    SendControl,
    TetherUp,
)

PATIENCE_S = 60  # a browser takes its time to start on a busy machine

pytestmark = pytest.mark.parametrize("kind", OURS)


@pytest.fixture(scope="module", autouse=True)
def _address() -> None:
    give_address()


async def description(page: Page) -> Description:
    """Return the page's description."""
    return description_of((await page.heard("/description"))["sdp"])


async def have_the_page_speak(ours: Ours, page: Page) -> None:
    """The page sends every size of its own accord; we echo; the page compares."""
    before = len(heard(ours))
    page.tell({"say": SIZES})
    for number, size in enumerate(SIZES):
        await ours.until(lambda number=number: len(heard(ours)) > before + number)
        data = heard(ours)[before + number]
        assert digest(data) == digest(pattern(size))
        ours.carrier.perform(SendControl(LINK, data))
    said = await page.heard("/said")
    assert said["heard"] == said["sent"] == [digest(pattern(size)) for size in SIZES]


async def test_our_link_opens_against_a_page_that_answers(kind: str) -> None:
    async with our_side(kind, within_s=PATIENCE_S) as ours, page_in_role("answer") as page:
        ours.carrier.perform(Describe(LINK, initiator=True))
        page.tell({"type": "offer", "sdp": sdp_of((await ours.event(Described)).local, "actpass")})
        ours.carrier.perform(Connect(LINK, await description(page)))
        await ours.event(Opened)
        ours.carrier.perform(OpenTether(LINK, TETHER, 2))
        await ours.event(TetherUp)
        await exchange(ours, TETHER)
        await have_the_page_speak(ours, page)
        ours.carrier.perform(Disconnect(LINK))
        assert (await ours.event(Closed)).end == CarrierEnd.ASKED


async def test_a_pages_link_opens_against_ours(kind: str) -> None:
    async with our_side(kind, within_s=PATIENCE_S) as ours, page_in_role("offer") as page:
        offer = await description(page)
        ours.carrier.perform(Describe(LINK, initiator=False))
        page.tell({"type": "answer", "sdp": sdp_of((await ours.event(Described)).local, "active")})
        ours.carrier.perform(Connect(LINK, offer))
        await ours.event(Opened)
        assert await ours.event(TetherUp) == TetherUp(LINK, TETHER)
        await exchange(ours, TETHER)
        await have_the_page_speak(ours, page)
        page.tell({"close": True})
        assert (await ours.event(Closed)).end == CarrierEnd.PEER
