"""The local page: a process of its own that asks the daemon, and shows a browser or Prometheus what it says."""
