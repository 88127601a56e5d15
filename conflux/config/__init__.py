"""`conflux.toml`: its keys and defaults, the checks of values, and the line of each key."""
