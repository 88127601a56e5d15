"""What tests of the C parts share."""

import ctypes
from pathlib import Path

import dtls_records
import pytest
import sctp_library
from hypothesis import settings

settings.register_profile("conflux", deadline=None, print_blob=True)  # a busy machine is no counterexample
settings.load_profile("conflux")


@pytest.fixture(scope="session")
def dtls_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return dtls_records.build(Path(tmp_path_factory.mktemp("dtls")))


@pytest.fixture(scope="session")
def sctp(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The SCTP association and the simulated world around it, undefined behaviour trapped."""
    return sctp_library.load(Path(tmp_path_factory.mktemp("sctp")))
