"""What a node keeps on disk: the state directory, the issuer's files, the clock's floor, a new realm."""
