"""Configuring the TUN device by netlink: what is asked of the kernel, and how its refusals are put into words."""

from __future__ import annotations

import errno
import sys
from types import ModuleType

import pytest

from conflux.host import netlink

REQUEST = {
    "device": "conflux-none",
    "mtu": 4000,
    "addresses": ["fd00::1", "100.64.0.1"],
    "networks": ["fd00::/64", "100.64.0.0/16"],
    "closed": [],
}


class NetlinkError(Exception):
    """As pyroute2 has it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class IPRoute:
    """A kernel with one device that refuses what it is told to refuse.  calls: what it was asked for."""

    def __init__(self, refusals: dict[str, int], index: tuple[int, ...] = (7,)) -> None:
        self.calls: list[tuple[str, dict]] = []
        self._refusals = refusals
        self._index = index

    def __enter__(self) -> IPRoute:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def link_lookup(self, ifname: str) -> tuple[int, ...]:
        return self._index

    def link(self, verb: str, **arguments: object) -> None:
        named = arguments.keys() - {"index", "flags", "change"}
        self._call(f"link {min(named)}", arguments)

    def addr(self, verb: str, **arguments: object) -> None:
        self._call(f"addr {arguments['address']}", arguments)

    def route(self, verb: str, **arguments: object) -> None:
        self._call(f"route {arguments['dst']}", arguments)

    def _call(self, what: str, arguments: dict) -> None:
        self.calls.append((what, arguments))
        if what in self._refusals:
            raise NetlinkError(self._refusals[what])


@pytest.fixture
def apply(monkeypatch):
    """Return a function that applies REQUEST to a kernel and returns the problem."""

    def apply(kernel: IPRoute, *closed: str) -> str | None:
        pyroute2 = ModuleType("pyroute2")
        pyroute2.IPRoute = lambda: kernel  # type: ignore[attr-defined]
        pyroute2.NetlinkError = NetlinkError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pyroute2", pyroute2)
        return netlink._apply(REQUEST | {"closed": list(closed)})

    return apply


def test_the_device_is_up_before_its_routes_are_added(apply):
    kernel = IPRoute({})
    assert apply(kernel) is None
    assert [what for what, _ in kernel.calls] == [
        "link mtu",
        "link gso_max_size",
        "link IFLA_AF_SPEC",
        "addr fd00::1",
        "addr 100.64.0.1",
        "link state",
        "route fd00::/64",
        "route 100.64.0.0/16",
    ]


def test_every_address_stands_alone_and_a_route_prefers_the_address_of_its_family(apply):
    kernel = IPRoute({})
    apply(kernel)
    calls = dict(kernel.calls)
    assert calls["addr fd00::1"]["prefixlen"] == 128
    assert calls["addr fd00::1"]["IFA_FLAGS"] == netlink.ADDRESS_FLAGS
    assert calls["addr 100.64.0.1"]["prefixlen"] == 32
    assert calls["route fd00::/64"]["prefsrc"] == "fd00::1"
    assert calls["route 100.64.0.0/16"]["prefsrc"] == "100.64.0.1"


def test_multicast_is_switched_off(apply):
    kernel = IPRoute({})
    apply(kernel)
    _, arguments = kernel.calls[0]
    assert (arguments["flags"] & netlink.IFF_MULTICAST, arguments["change"]) == (0, netlink.IFF_MULTICAST)


@pytest.mark.parametrize("what", ["link gso_max_size", "link IFLA_AF_SPEC"])
def test_a_kernel_that_does_not_know_a_setting_of_convenience_is_good_enough(apply, what):
    assert apply(IPRoute({what: errno.EOPNOTSUPP})) is None


@pytest.mark.parametrize(
    ("what", "code", "problem"),
    [
        ("link mtu", errno.EINVAL, "set MTU 4000: Invalid argument"),
        ("addr fd00::1", errno.EACCES, "add address fd00::1/128: the kernel has no IPv6, or it is switched off"),
        ("addr fd00::1", errno.EOPNOTSUPP, "add address fd00::1/128: the kernel has no IPv6, or it is switched off"),
        ("addr 100.64.0.1", errno.EACCES, "add address 100.64.0.1/32: Permission denied"),
        ("addr fd00::1", errno.EEXIST, "add address fd00::1/128: File exists"),
        ("link state", errno.EPERM, "bring the device up: Operation not permitted"),
        ("route fd00::/64", errno.EEXIST, "add route fd00::/64: another device has a route to that network already"),
        ("route 100.64.0.0/16", errno.EPERM, "add route 100.64.0.0/16: Operation not permitted"),
    ],
)
def test_a_refusal_names_the_step_and_what_a_person_can_do(apply, what, code, problem):
    said = apply(IPRoute({what: code}))
    assert said is not None
    assert said.startswith(problem)


def test_a_device_that_is_gone_is_told_as_such(apply):
    assert apply(IPRoute({}, index=())) == "find the device: it has vanished"


def test_the_other_ways_are_closed_before_the_device_has_its_routes(apply):
    kernel = IPRoute({})
    assert apply(kernel, "fd00::/48", "100.64.0.0/10") is None
    routes = [(what, arguments) for what, arguments in kernel.calls if what.startswith("route")]
    assert [what for what, _ in routes] == [
        "route fd00::/48",
        "route 100.64.0.0/10",
        "route fd00::/64",
        "route 100.64.0.0/16",
    ]
    for _, arguments in routes[:2]:
        assert arguments["type"] == "unreachable"
        assert arguments["priority"] == netlink.CLOSED_METRIC
        assert "oif" not in arguments


def test_a_family_that_the_kernel_lacks_needs_no_closing(apply):
    assert apply(IPRoute({"route fd00::/48": errno.EOPNOTSUPP}), "fd00::/48", "100.64.0.0/10") is None
    refused = apply(IPRoute({"route 100.64.0.0/10": errno.EPERM}), "fd00::/48", "100.64.0.0/10")
    assert refused == "close the way to 100.64.0.0/10: Operation not permitted"
