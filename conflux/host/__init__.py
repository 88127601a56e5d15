"""The machine that the daemon runs on: TUN device, addresses, privileges, priority, memory, systemd, log."""
