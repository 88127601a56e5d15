"""Every primitive Conflux uses, each behind one small door.  No other part imports pqcrypto or touches a raw key."""
