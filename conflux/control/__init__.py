"""How nodes exchange small signed messages.  Never user data."""
