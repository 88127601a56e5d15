"""Links whose DTLS, SCTP and channels are the engine's: Python signals, the compiled code carries."""
