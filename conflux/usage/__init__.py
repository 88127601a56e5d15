"""How many bytes this node's sockets sent and received: by kind, by peer, by day; and what a person allows."""
