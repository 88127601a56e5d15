"""The book of bytes: days, months, peers, and clocks that jump."""

from datetime import date

import pytest

from conflux.errors import RemoteProtocolError
from conflux.ids import NodeId
from conflux.usage.book import (
    BYTES_MAX,
    DAY_COUNT_MAX,
    PEER_COUNT_MAX,
    Book,
    DayRow,
    PeerRow,
    Sums,
    UsageFile,
    total,
)
from conflux.usage.tally import KINDS, Both, Counts, Kind, Other, Tally, Traffic, Who

ALICE, BOB = NodeId(b"a" * 16), NodeId(b"b" * 16)


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def data(sent: int, received: int = 0) -> Counts:
    return {Kind.DATA: Both(sent, received)}


def told(book: Book, who: Who) -> tuple[int, int]:
    """What the book has of a peer, today and this month."""
    rows = {known: (total(today).total, total(month).total) for known, today, month in book.peers()}
    return rows.get(who, (0, 0))


def again(book: Book, **given: int) -> Book:
    """The book after a restart."""
    return Book(UsageFile.decode_untrusted(book.kept().encode()), **given)


def test_a_tally_sums_by_peer_and_kind_and_begins_anew_when_taken() -> None:
    tally = Tally()
    tally.add(ALICE, Kind.DATA, sent=10)
    tally.add(ALICE, Kind.DATA, received=5)
    tally.add(ALICE, Kind.CONTROL, sent=1)
    tally.add(Other.BROKER, Kind.KEEP_ALIVE, sent=0, received=0)
    assert tally.take() == {ALICE: {Kind.DATA: Both(10, 5), Kind.CONTROL: Both(1, 0)}}
    assert tally.take() == {}


def test_a_tally_asks_who_is_watched_before_it_is_taken() -> None:
    tally = Tally()

    def count() -> None:
        tally.add(BOB, Kind.CONTROL, sent=7)

    tally.watch(count)
    assert tally.take() == {BOB: {Kind.CONTROL: Both(7, 0)}}
    tally.unwatch(count)
    tally.unwatch(count)
    assert tally.take() == {}


def test_a_tally_of_many_peers_is_bounded_and_loses_no_byte() -> None:
    tally = Tally()
    for number in range(5000):
        tally.add(NodeId(number.to_bytes(16, "big")), Kind.DATA, sent=1)
    taken = tally.take()
    assert len(taken) <= 1025
    assert sum(total(counts).total for counts in taken.values()) == 5000


def test_traffic_is_taken_once() -> None:
    traffic = Traffic()
    traffic.add(Kind.SET_UP, sent=3)
    traffic.add(Kind.SET_UP, received=4)
    assert traffic.take() == {Kind.SET_UP: Both(3, 4)}
    assert traffic.take() == {}


def test_today_and_this_month_are_told_and_survive_a_restart() -> None:
    book = Book()
    book.add({ALICE: data(100, 50)}, day=day("2026-11-29"))
    book.add({ALICE: data(10), BOB: {Kind.CONTROL: Both(0, 7)}}, day=day("2026-11-30"))
    for each in (book, again(book)):
        assert each.today() == {Kind.DATA: Both(10, 0), Kind.CONTROL: Both(0, 7)}
        assert total(each.month()) == Both(110, 57)
        assert told(each, ALICE) == (10, 160)
        assert told(each, BOB) == (7, 7)
        assert each.others() == ({}, {})


def test_a_new_day_begins_at_nothing_and_a_new_month_too() -> None:
    book = Book()
    book.add({ALICE: data(100)}, day=day("2026-11-30"))
    book.add({BOB: data(1)}, day=day("2026-12-01"))
    assert (total(book.today()).total, total(book.month()).total) == (1, 1)
    assert told(book, ALICE) == (0, 0)
    assert [each for each, _ in book.days()] == [day("2026-11-30"), day("2026-12-01")]


def test_a_month_that_begins_on_the_15th_goes_on_over_the_first() -> None:
    book = Book(starts=15)
    book.add({ALICE: data(100)}, day=day("2026-11-30"))
    book.add({ALICE: data(1)}, day=day("2026-12-01"))
    assert total(book.month()).total == 101
    book.add({ALICE: data(2)}, day=day("2026-12-15"))
    assert total(book.month()).total == 2


def test_another_first_day_counts_from_the_days_that_are_kept() -> None:
    book = Book()
    book.add({ALICE: data(100)}, day=day("2026-11-20"))
    book.add({ALICE: data(1)}, day=day("2026-12-01"))
    book.begin_months_on(15)
    assert total(book.month()).total == 101
    assert total(book.others()[1]).total == 100  # with whom, is not known any more
    book.begin_months_on(1)
    assert total(book.month()).total == 1


def test_what_passes_without_a_date_counts_for_the_day_on_which_it_is_known() -> None:
    book = Book()
    book.add({ALICE: data(5)}, day=None)
    assert total(book.today()).total == total(book.month()).total == 5
    assert book.day is None
    book = again(book)
    book.add({ALICE: data(1)}, day=day("2026-12-01"))
    assert total(book.today()).total == 6
    assert book.undated == {}


def test_a_restart_without_a_date_goes_on_after_the_last_day() -> None:
    book = Book()
    book.add({ALICE: data(5)}, day=day("2026-11-30"))
    book = again(book)
    book.add({ALICE: data(2)}, day=None)
    assert total(book.today()).total == 7
    book.add({}, day=day("2026-12-01"))
    assert total(book.today()).total == 2
    assert total(dict(book.days())[day("2026-11-30")]).total == 5


def test_a_clock_that_ran_ahead_loses_no_byte_of_today() -> None:
    book = Book()
    book.add({ALICE: data(5)}, day=day("2026-12-03"))
    book.add({ALICE: data(1)}, day=day("2026-12-01"))
    assert total(book.today()).total == total(book.month()).total == 6
    assert told(book, ALICE) == (6, 6)
    book.add({ALICE: data(1)}, day=day("2026-12-03"))
    assert total(book.today()).total == 1
    assert total(book.month()).total == 7


def test_a_clock_that_was_years_ahead_forgets_neither_the_month_nor_its_peers() -> None:
    book = Book()
    book.add({ALICE: data(5)}, day=day("2026-12-01"))
    book.add({ALICE: data(5)}, day=day("2026-12-02"))
    book.add({BOB: data(1)}, day=day("2035-07-01"))
    book.add({ALICE: data(2)}, day=day("2026-12-02"))
    assert total(book.month()).total == 13
    assert total(book.today()).total == 8
    assert told(book, BOB) == (1, 1)


def test_a_count_below_nothing_is_kept_as_nothing() -> None:
    assert Sums.of({Kind.DATA: Both(-5, 3)}) == Sums(data_sent=0, data_received=3)


def test_days_are_kept_for_two_months_and_no_longer() -> None:
    book = Book()
    first = day("2026-01-01")
    for number in range(200):
        book.add({ALICE: data(1)}, day=first + number)
    assert [each for each, _ in book.days()] == list(range(first + 200 - DAY_COUNT_MAX, first + 200))
    assert again(book).days() == book.days()


def test_peers_are_a_bounded_table_and_the_rest_are_others() -> None:
    book = Book()
    today = day("2026-12-01")
    for number in range(3 * PEER_COUNT_MAX):
        book.add({NodeId(number.to_bytes(16, "big")): data(1 if number % 3 else 1000)}, day=today)
    assert len(book.peers()) == PEER_COUNT_MAX
    listed = sum(total(month).total for _, _, month in book.peers())
    assert listed + total(book.others()[1]).total == total(book.month()).total == PEER_COUNT_MAX * 1002
    assert [total(month).total for _, _, month in book.peers()][:10] == [1000] * 10


def test_the_fullest_file_fits_and_is_read_back() -> None:
    most = Sums(*([BYTES_MAX] * 2 * len(KINDS)))
    days = tuple(DayRow(day("2026-12-01") - number, most) for number in range(DAY_COUNT_MAX))
    peers = tuple(PeerRow(number.to_bytes(16, "big"), "", most, most) for number in range(PEER_COUNT_MAX))
    file = UsageFile(day("2026-12-01"), day("2026-12-01"), most, days, peers)
    assert UsageFile.decode_untrusted(file.encode()) == file
    book = Book(file)
    book.add({ALICE: data(BYTES_MAX)}, day=day("2026-12-02"))
    assert UsageFile.decode_untrusted(book.kept().encode()).days


def test_a_file_that_says_more_than_there_can_be_is_refused() -> None:
    many = UsageFile(0, 0, Sums(), tuple(DayRow(1, Sums()) for _ in range(DAY_COUNT_MAX + 1)))
    far = UsageFile(0, 0, Sums(), (DayRow(10**9, Sums()),))
    huge = UsageFile(0, 0, Sums(data_sent=BYTES_MAX + 1))
    for file in (many, far, huge):
        with pytest.raises(RemoteProtocolError):
            UsageFile.decode_untrusted(file.encode())


def test_rows_without_sense_are_left_out() -> None:
    rows = (
        PeerRow(b"", "broker", Sums(data_sent=1), Sums(data_sent=1)),
        PeerRow(b"", "somebody", Sums(), Sums()),
        PeerRow(b"short", "", Sums(), Sums()),
    )
    book = Book(UsageFile(0, 0, Sums(), (DayRow(0, Sums(data_sent=9)),), rows))
    assert [who for who, _, _ in book.peers()] == [Other.BROKER]
    assert book.days() == []
