"""What `make image` does: a Debian, a root tree, and for each board a disk image and an update bundle of it."""
