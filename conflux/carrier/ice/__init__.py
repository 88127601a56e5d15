"""Interactive Connectivity Establishment (RFC 8445): candidates, sockets, and the datagrams that pass them."""
