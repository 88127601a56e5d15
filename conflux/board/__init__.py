"""What runs on a flashed board around the daemon: its card, first boot, updates.  The daemon imports none of it."""
