"""Every cryptographic primitive that Conflux uses.  No other package imports pqcrypto or touches a raw key."""
