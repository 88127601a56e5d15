"""What SCTP itself costs on one core: two associations in one process, no network.  Run by `make bench-parts`."""

from __future__ import annotations

from compiled import output_of

MESSAGE_BYTES = 65536
PACKET_BYTES = 1432  # what an IPv4 path of 1500 bytes leaves below UDP and DTLS
SECONDS = 3
LOST_ONE_IN = (0, 100)  # 0: no loss


def main() -> None:
    """Print one line without loss and one with."""
    print("SCTP: two associations in one process, no network; then with one packet in 100 lost")
    for one_in in LOST_ONE_IN:
        arguments = map(str, (MESSAGE_BYTES, PACKET_BYTES, SECONDS, one_in))
        parts = ("sctp/*.c", "rate/rate.c")
        print("  " + output_of("sctp_pair", *arguments, parts=parts, libraries=("-lcrypto",)).strip())


if __name__ == "__main__":
    main()
