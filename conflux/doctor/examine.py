"""All checks, one after another: for `conflux doctor`, the report and the local page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from conflux.doctor import board, broker, clock, firewall, host, journal, multicast, node
from conflux.doctor.finding import Check, Finding, unseen
from conflux.doctor.subject import Subject
from conflux.host.notices import notices

Run = Callable[[Subject], Iterator[Finding]]

# What takes milliseconds, reads files and asks the daemon alone.
CHEAP: tuple[tuple[Check, Run], ...] = (
    (Check.BOARD, lambda seen: board.judge(notices())),
    (Check.CONFIGURATION, node.configuration),
    (Check.DAEMON, node.daemon),
    (Check.NEIGHBOURS, node.neighbours),
    (Check.VERSIONS, lambda seen: node.versions(node.look_at_versions(seen))),
    (Check.STATE, lambda seen: node.state(node.look_at_state(seen))),
    (Check.DISK, lambda seen: host.disk(host.look_at_disk(seen))),
    (Check.CREDENTIAL, lambda seen: node.credential(node.look_at_credential(seen))),
    (Check.CLOCK, lambda seen: clock.judge(clock.look(seen))),
    (Check.TUN, lambda seen: host.device(host.look_at_device(seen))),
    (Check.MTU, lambda seen: host.mtus(host.look_at_mtus(seen))),
    (Check.INTERFACES, lambda seen: host.judge_interfaces(host.look_at_interfaces(seen))),
    (Check.PREFIXES, lambda seen: host.prefixes(host.look_at_prefixes(seen))),
    (Check.KERNEL, lambda seen: host.kernel(host.look_at_kernel(seen))),
)


def findings(seen: Subject, *, deep: bool) -> Iterator[Finding]:
    """Yield what every check finds, as it is found.

    deep: also what sends packets, starts programs or takes seconds: the port at each address, the firewall, the fence,
    multicast, the broker, the log.
    """
    for check, run in CHEAP:
        yield from _guarded(check, run, seen)
    yield from _guarded(Check.PORT, lambda each: firewall.judge_port(firewall.look_at_port(each, deep=deep)), seen)
    if not deep:
        return
    rules = firewall.look_at_firewall(seen)
    yield from firewall.firewall(rules)
    yield from firewall.fence(rules)
    yield from _guarded(Check.MULTICAST, lambda each: multicast.judge(multicast.look(each)), seen)
    yield from _guarded(Check.BROKER, broker.broker, seen)
    yield from journal.judge(journal.look(seen.config.node.log_level))


def _guarded(check: Check, run: Run, seen: Subject) -> Iterator[Finding]:
    """Yield what one check finds; what the host does not let it look at stops no other check."""
    try:
        yield from run(seen)
    except OSError as error:
        yield unseen(check, f"cannot be looked at: {error.strerror or error}")
