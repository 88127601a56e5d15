"""The embedded default: neighbours found by mDNS, one mutually authenticated TLS 1.3 connection to each."""
