"""Who belongs: realm and node identities, credentials, cards, invitations, and the directory that keeps them."""
