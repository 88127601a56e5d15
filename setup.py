"""Compiled extensions; everything else is in pyproject.toml.

CONFLUX_SANITIZE=address,undefined builds them with those sanitizers.  What then runs needs the sanitizer loaded first:

    CONFLUX_SANITIZE=address,undefined python setup.py build_ext --inplace --force
    LD_PRELOAD=$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 python -m pytest tests/loopback/native
"""

import os
import platform
import shlex
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from threading import Lock
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# The engine maps super-packets, counts bytes and reads clocks in 64 bits, all the time and without locks.
if sys.maxsize < 2**63 - 1:
    raise SystemExit(
        f"conflux: this Python is a 32-bit one ({platform.machine()}), and Conflux needs a 64-bit system.  "
        "On a Raspberry Pi (Zero 2 W, 3, 4, 5) install the 64-bit Raspberry Pi OS: a 64-bit kernel alone is not enough."
    )

# Hidden: a call from one file to another need not go by way of the linker's table; Python's entry point stays visible.
compile_args = ["-std=c11", "-O3", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
link_args = []

if sanitizers := os.environ.get("CONFLUX_SANITIZE", ""):
    compile_args += ["-O1", "-g", "-DCONFLUX_CHECK", "-fno-omit-frame-pointer"]
    compile_args += ["-fno-sanitize-recover=all", f"-fsanitize={sanitizers}"]
    link_args += [f"-fsanitize={sanitizers}"]

compile_args += shlex.split(os.environ.get("CFLAGS", ""))  # last, so that "-Og -g" wins over what is above

HEADERS = sorted(path for kind in ("h", "pxd", "pxi") for path in glob(f"cext/*/*.{kind}"))

# Cython leaves its C beside the .pyx: that is no source of ours.
PARTS = sorted(path for path in glob("cext/*/*.c") if not os.path.exists(f"{path[:-2]}.pyx"))


def extension(name: str, *sources: str) -> Extension:
    """One extension of the tree; headers are named from cext/."""
    return Extension(
        name,
        sources=[*sources],
        depends=HEADERS,
        include_dirs=["cext"],
        libraries=["crypto"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


def is_current(target: Path, options: str) -> bool:
    """Say whether an object was made with these options, after every file that the compiler then read for it."""
    try:
        made_ns = target.stat().st_mtime_ns
        used, rule = target.with_suffix(".d").read_text().split("\n", 1)
        sources = shlex.split(rule.replace("\\\n", " "))[1:]
        return used == options and all(os.stat(source).st_mtime_ns < made_ns for source in sources)
    except OSError:
        return False


class BuildByNeed(build_ext):
    """Compile only what changed: setuptools compiles all sources of an extension when one of its files is newer.

    As make does it: the compiler writes beside each object which files it read.  Objects are compiled side by side.
    """

    def build_extensions(self) -> None:
        """Build the extensions, with a compiler that leaves current objects alone."""
        compiler, compile_all = self.compiler, self.compiler.compile
        locks: defaultdict[str, Lock] = defaultdict(Lock)  # two extensions may share an object
        # In the tree, for the folder that pip would have is gone after each build; apart from those with sanitizers.
        abi = sysconfig.get_config_var("SOABI")
        self.build_temp = "-".join(["build/objects", abi, *filter(None, [sanitizers])])

        def compile_by_need(sources: Sequence[str], output_dir: str = "", **options: Any) -> list[str]:
            """Return the object of each source, as the compiler's own compile() does."""

            def compile_one(source: str) -> str:
                (target,) = compiler.object_filenames([source], output_dir=output_dir)
                flags = sorted((name, value) for name, value in options.items() if name != "depends")
                used = repr((compiler.compiler_so, compiler.include_dirs, flags))
                with locks[target]:
                    if self.force or not is_current(Path(target), used):
                        read = Path(target).with_suffix(".d")
                        postargs = [*options["extra_postargs"], "-MMD", "-MF", str(read)]
                        compile_all([source], output_dir, **options | {"extra_postargs": postargs})
                        read.write_text(f"{used}\n{read.read_text()}")
                return target

            return list(objects.map(compile_one, sources))

        # setuptools leaves an extension alone that is newer than its files, whatever options it was made with, and
        # whatever source is gone.  Linked anew each time, it asks is_current() for each object.
        for each in self.extensions:
            Path(self.get_ext_fullpath(each.name)).unlink(missing_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as objects:
            compiler.compile = compile_by_need
            super().build_extensions()


setup(
    cmdclass={"build_ext": BuildByNeed},
    ext_modules=[
        extension("conflux.anchor._codec", "cext/anchor/codec.pyx", "cext/anchor/aead.c"),
        extension("conflux.datapath.native._engine", "cext/engine/engine.pyx", *PARTS),
    ],
)
