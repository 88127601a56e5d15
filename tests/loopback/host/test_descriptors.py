"""A host without a free descriptor: what looks at it says nothing of it, rather than something wrong."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Network

import pytest
from kit.plain import python_in

from conflux.config.settings import parse
from conflux.daemon.device import collisions, interface_warnings
from conflux.host import descriptors, tun, underlay

WLAN = parse('[control.lan]\ninterfaces = ["wlan9"]')


@contextmanager
def limit(soft: int) -> Iterator[int]:
    """Let the process have that many descriptors, and give the hard limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_to_what_the_system_allows() -> None:
    with limit(64) as hard:
        wanted = descriptors.COUNT_MAX if hard == resource.RLIM_INFINITY else min(hard, descriptors.COUNT_MAX)
        assert descriptors.ask() == wanted
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
        assert descriptors.ask() == wanted, "and is never lowered"


def test_without_a_descriptor_no_address_counts_as_gone() -> None:
    with limit(0):
        here = [underlay.is_here(address) for address in ("127.0.0.1", "fe80::1%lo")]
    assert here == [True, True]


def test_without_a_descriptor_the_device_has_lost_no_route() -> None:
    with limit(0), pytest.raises(OSError, match="Too many open files"):
        tun.routes()


def test_without_a_descriptor_neither_networks_nor_interfaces_are_said_to_be_wrong() -> None:
    python_in("TwoWords")  # every line of the log is looked at: what that reads is read before
    with limit(0):
        said = collisions((IPv6Network("fd00:7::/48"),), "conflux0"), interface_warnings(WLAN)
    assert said == ((), ())
    assert len(interface_warnings(WLAN)) == 1
