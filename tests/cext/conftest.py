"""Fixtures that tests of the C parts share."""

import ctypes

import kit.dtls
import kit.sctp
import pytest


@pytest.fixture(scope="session")
def dtls_library() -> ctypes.CDLL:
    return kit.dtls.load()


@pytest.fixture(scope="session")
def sctp() -> ctypes.CDLL:
    """The SCTP association and the simulated world around it, with undefined behaviour trapped."""
    return kit.sctp.load()
