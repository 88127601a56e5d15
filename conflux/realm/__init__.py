"""Membership: the identities of realms and nodes, credentials, cards and invitations."""
