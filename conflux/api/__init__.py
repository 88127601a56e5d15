"""The API on the daemon's Unix socket: requests, their answers, and the client of the command line."""
