"""Compiled extensions; everything else is in pyproject.toml.

CONFLUX_SANITIZE=address,undefined builds them with those sanitizers.  What then runs needs the sanitizer loaded first:

    CONFLUX_SANITIZE=address,undefined python setup.py build_ext --inplace --force
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 python -m pytest tests/unit
"""

import os
import platform
import sys
from glob import glob

from setuptools import Extension, setup

# The engine maps super-packets, counts bytes and reads clocks in 64 bits, all the time and without locks.
if sys.maxsize < 2**63 - 1:
    raise SystemExit(
        f"conflux: this Python is a 32-bit one ({platform.machine()}), and Conflux needs a 64-bit system.  "
        "On a Raspberry Pi (Zero 2 W, 3, 4, 5) install the 64-bit Raspberry Pi OS: a 64-bit kernel alone is not enough."
    )

compile_args = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wno-unused-parameter"]
link_args = []

if sanitizers := os.environ.get("CONFLUX_SANITIZE"):
    compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", f"-fsanitize={sanitizers}"]
    link_args += [f"-fsanitize={sanitizers}"]

setup(
    ext_modules=[
        Extension(
            "conflux.anchor._codec",
            sources=["cext/anchor_codec.pyx", "cext/aead.c"],
            depends=["cext/aead.h", "cext/frame.h", "cext/replay.h"],
            include_dirs=["cext"],
            libraries=["crypto"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        ),
        Extension(
            "conflux.datapath._engine",
            sources=[
                "cext/engine.pyx",
                "cext/aead.c",
                "cext/crc32c.c",
                "cext/dtls.c",
                "cext/engine_datagrams.c",
                "cext/engine_link.c",
                "cext/engine_stream.c",
                "cext/engine_tables.c",
                "cext/engine_thread.c",
                "cext/engine_tun.c",
                "cext/engine_turns.c",
                "cext/map.c",
                "cext/packet.c",
                "cext/queue.c",
                "cext/rate.c",
                "cext/relay.c",
                *sorted(glob("cext/sctp*.c")),
            ],
            depends=[*glob("cext/*.h"), "cext/engine_h.pxd", "cext/engine_values.pxi"],
            include_dirs=["cext"],
            libraries=["crypto"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        ),
    ],
)
