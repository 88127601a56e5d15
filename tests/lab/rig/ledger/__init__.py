"""The ledger: every message between two daemons, by name, with its bytes on the wire.

    alpha --- br0 --- bravo          captured at alpha's eth0, every byte of it

An outside view: packets come from a raw socket (capture.py).  TLS and DTLS are opened with keys that the daemons write
down (hook/, keys.py).  SCTP chunks and control frames are cut and named (tls.py, links.py).  The sum is held against
the kernel's counters (rows.py, spells.py).

A packet's headers belong to the message whose bytes it carries, in parts if it carries several.  Bytes are those of
Ethernet frames without checksum, preamble and gap: what the kernel counts.
"""
