"""Links over unmodified aiortc: slow; the native carrier is compared with them."""
