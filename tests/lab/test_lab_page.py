"""The local page beside a real daemon: what a browser shows of it, what it weighs, and what a flood costs the daemon.

cellar ──┐
attic ───a── shed ──b── barn        attic serves the page; shed relays to barn
loft ────┘

What was measured goes to build/page.json, and pictures of the page to build/page-*.webp.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kit.answers import HOSTILE, status
from rig import gauge
from rig.browser import Tab, browser
from rig.enter import add_figures, deliver_picture
from rig.joined_lans import JoinedLans
from rig.served import served
from rig.topology import CONFLUX, SETTINGS, Lab, wait_for

pytestmark = pytest.mark.alone

WIRING = {"attic": "a", "cellar": "a", "loft": "a", "shed": "ab", "barn": "b"}
PORT = 7480
HOME = f"http://127.0.0.1:{PORT}/"
PAGE_KB_MAX, FIRST_PAINT_MS_MAX, PSS_MB_MAX = 100, 500, 25  # what the project promises
READY = "document.querySelectorAll('#nodes tbody tr').length === 4"
# Its own node at the end of a stream, and two that are heard of alone.
SHOWN = ("attic", "cellar", "loft", "shed", "barn", "by shed", "same LAN", "flowing", "Health", "Bytes a day")
FLOOD_S = 5
# More connections than are served at once, none of which asks anything.
HELD = f"import socket, time\ns = [socket.create_connection(('127.0.0.1', {PORT})) for _ in range(80)]\ntime.sleep(60)"
DAEMON_CPU_SHARE_MAX = 0.10  # of a processor, beside a flood; a question a second takes a few thousandths


class Site:
    """The LANs, and the page of attic."""

    def __init__(self, lab: Lab) -> None:
        self.lans = JoinedLans(lab, WIRING)
        self.attic = self.lans["attic"]
        self.daemon = self.lans.realm.daemons["attic"]
        self.barn = self.lans["barn"].overlay_addresses()[1]
        self.attic.configure({"page": {"listen": ["overlay", "eth0"]}, **SETTINGS})
        self.page = self.attic.spawn("page", CONFLUX, "page", "--config", self.attic.config)
        own = (*self.attic.overlay_addresses(), *self.attic.addresses)
        for address in ("127.0.0.1", *own):
            self.await_place(address)
        self.flow = self.attic.spawn("flow", "ping", "-n", "-i", "0.2", self.barn)
        wait_for(lambda: "time=" in self.flow.output(), "barn answering", within_s=15, logs=self.lans.realm.logs())

    def await_place(self, address: str) -> None:
        """Wait until the page says that it is at an address."""
        wait_for(lambda: address in self.page.output(), f"the page at {address}", within_s=15, logs=(self.page,))

    def get(self, url: str, *options: str, host: str = "attic") -> tuple[int, str]:
        """Return status and body of what curl gets on a host."""
        done = self.lans[host].run("curl", "-sg", "-m", "10", "-w", "\n%{http_code}", *options, url, check=False)
        body, _, code = done.stdout.rpartition("\n")
        return int(code), body


@pytest.fixture(scope="module")
def site(shared_lab: Lab) -> Site:
    """The site, for every test of this file."""
    return Site(shared_lab)


@pytest.fixture(scope="module")
def tab(site: Site) -> Iterator[Tab]:
    """A browser on attic."""
    with browser(site.attic.enter) as tab:
        yield tab


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_browser_shows_everything_without_a_complaint_and_nothing_overflows(
    site: Site, tab: Tab, width: int, height: int, dark: bool
) -> None:
    tab.emulate(width, height, dark=dark)
    tab.open(HOME)
    tab.wait_until(READY)
    text = tab.evaluate("document.body.innerText")
    assert [word for word in SHOWN if word not in text] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    right = "Math.max(...[...document.querySelectorAll('main *')].map(each => each.getBoundingClientRect().right))"
    assert tab.evaluate(right) <= width
    assert tab.evaluate("document.querySelectorAll('#map g').length") == 4
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).every(each => each > 128)")
    assert light is not dark
    assert {url.rpartition("/")[2] for url in tab.requests() if not url.startswith("data:")} == {"", "state.json"}
    assert tab.complaints == []
    deliver_picture(f"page-{width}-{'dark' if dark else 'light'}.webp", tab.picture("webp"))


def test_the_page_says_what_the_doctor_finds(site: Site, tab: Tab) -> None:
    tab.emulate(1280, 900, dark=False)
    tab.open(HOME)
    tab.wait_until("/[0-9]+ checks good/.test(document.getElementById('health').innerText)", within_s=40)
    found = json.loads(site.get(f"{HOME}state.json")[1])["findings"]
    checks = {each["check"] for each in found}
    assert {"daemon", "credential", "tun"} <= checks
    assert "multicast" not in checks  # which sends packets
    bad = [each["text"] for each in found if each["grade"] == "bad"]
    said = tab.evaluate("document.getElementById('health').innerText")
    assert [text for text in bad if text not in said] == []


def test_the_page_is_light_and_quick(site: Site, tab: Tab) -> None:
    paints = []
    for _ in range(5):
        tab.emulate(1280, 900, dark=False)
        tab.open(HOME)
        tab.wait_until(READY)
        entry = "performance.getEntriesByName('first-contentful-paint')[0]"
        tab.wait_until(f"!!{entry}")
        paints.append(tab.evaluate(f"{entry}.startTime"))
    site.get(f"{HOME}metrics")  # from here on the writer of metrics is loaded too
    figures: dict[str, Any] = {
        "page_kb": round(tab.transferred_bytes() / 1000, 1),
        "first_paint_ms": round(sorted(paints)[2]),
        "pss_mb": round(gauge.memory(site.page.pid).pss_mb, 1),
    }
    print(figures)
    add_figures("page.json", figures)
    assert figures["page_kb"] <= PAGE_KB_MAX
    assert figures["first_paint_ms"] <= FIRST_PAINT_MS_MAX
    assert figures["pss_mb"] <= PSS_MB_MAX


def test_a_hostile_name_is_text_in_the_browser_and_overflows_nothing() -> None:
    named = {"name": HOSTILE + "x" * 200}
    sample = status()
    hostile = status(
        node=sample["node"] | named,
        realm=sample["realm"] | named,
        warnings=[HOSTILE],
        **{part: [each | named for each in sample[part]] for part in ("nodes", "streams", "links", "destinations")},
    )
    with served(lambda: hostile) as port, browser() as tab:
        for width in (1280, 390):
            tab.emulate(width, 900, dark=False)
            tab.open(f"http://127.0.0.1:{port}/")
            tab.wait_until("document.querySelectorAll('#nodes tbody tr').length === 3")
            assert tab.evaluate("document.querySelectorAll('img, [onerror], main script').length") == 0
            assert "<img src=x onerror=alert(1)>" in tab.evaluate("document.body.innerText")
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.complaints == []


def test_members_and_neighbours_read_it_and_prometheus_gets_its_metrics(site: Site) -> None:
    ipv4, ipv6 = site.attic.overlay_addresses()
    for host, address in (("barn", ipv4), ("barn", f"[{ipv6}]"), ("cellar", site.attic.addresses[0])):
        code, body = site.get(f"http://{address}:{PORT}/metrics", host=host)
        assert (code, "conflux_up 1.0" in body) == (200, True)


def test_a_foreign_host_header_gets_nothing(site: Site) -> None:
    for path in ("", "state.json", "metrics"):
        code, body = site.get(f"{HOME}{path}", "-H", "Host: rebound.evil.example")
        assert (code, "attic" in body) == (421, False)
    assert site.get(f"{HOME}state.json", "-H", "Host: attic.lab")[0] == 200
    assert site.get(HOME, "-X", "POST", "-d", "x=1")[0] == 405


def test_the_daemon_does_not_notice_a_flood_and_slow_readers(site: Site) -> None:
    site.attic.spawn("held", CONFLUX.with_name("python"), "-c", HELD)
    url = f"http://{site.attic.addresses[0]}:{PORT}/"
    loop = f"while :; do curl -s -m 2 -o /dev/null {url}state.json {url}metrics {url}; done"
    flood = [site.lans[name].spawn("flood", "sh", "-c", loop) for name in ("cellar", "loft") for _ in range(3)]
    before, began = gauge.cpu_s(site.daemon.pid), time.monotonic()
    pings = site.attic.ping(site.barn, "-c", str(FLOOD_S * 10), "-i", "0.1", "-W", "5")
    share = (gauge.cpu_s(site.daemon.pid) - before) / (time.monotonic() - began)
    for each in flood:
        each.kill()
    print({"daemon_cpu_share_in_flood": round(share, 3), "pings_lost": pings.lost})
    add_figures("page.json", {"daemon_cpu_share_in_flood": round(share, 3)})
    assert pings.lost == 0
    assert share < DAEMON_CPU_SHARE_MAX
    assert site.page.exit_code is None


def test_a_terminal_shows_the_same_and_a_pipe_gets_one_picture(site: Site) -> None:
    for columns in (80, 40):
        done = site.attic.run("env", f"COLUMNS={columns}", CONFLUX, "top", "--config", site.attic.config)
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= columns
        assert any(line.startswith("barn") and "by shed" in line for line in lines)
    command = f"{CONFLUX} top -i 0.5 --config {site.attic.config}"
    shown = site.attic.run("bash", "-c", f"(sleep 4; printf q) | script -qec '{command}' /dev/null").stdout
    assert shown.count("attic in realm lab") >= 2
    assert shown.rstrip().endswith("\x1b[?1049l")  # the terminal has its own screen again


def test_a_daemon_that_is_gone_is_said_and_its_last_state_stays(site: Site, tab: Tab) -> None:
    site.flow.kill()
    tab.emulate(390, 844, dark=False)
    tab.open(HOME)
    tab.wait_until(READY)
    site.daemon.kill()
    tab.wait_until("!document.getElementById('silent').hidden")
    said = tab.evaluate("document.getElementById('silent').innerText")
    assert "The daemon has not answered since" in said
    assert "start it with `conflux up`" in said
    assert tab.evaluate(READY)
    assert "conflux_up 0.0" in site.get(f"{HOME}metrics")[1]
    done = site.attic.conflux("top", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    site.lans.realm.restart(site.attic)
    tab.wait_until("document.getElementById('silent').hidden")


def test_the_page_ends_in_good_order(site: Site) -> None:
    site.page.signal(signal.SIGTERM)
    assert site.page.wait(10) == 0
    assert "Traceback" not in site.page.output()
