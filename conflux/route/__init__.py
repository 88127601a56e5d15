"""Routes: the hops under a stream, joined by labels.  routes.py and relays.py decide; message.py is what hops say."""
