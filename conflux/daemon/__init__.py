"""The daemon: run.py prepares the host, build.py makes the parts, daemon.py starts and stops them."""
