"""Boards that boot from the image a user flashes, in an emulator, on cables of ours."""
