"""The container image's writer: packaging/oci.py, tried on a small root."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from kit.tree import TREE

SECONDS = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "conflux").write_text("#!/usr/bin/python3\n")
    (root / "usr" / "bin" / "conflux").chmod(0o755)
    (root / "bin").symlink_to("usr/bin")
    return root


def write(root: Path, layout: Path) -> Path:
    """Write an image of two processors that have the same root."""
    words = [str(layout), "0.1.0", str(SECONDS), f"amd64={root}", f"arm64={root}"]
    subprocess.run([sys.executable, str(TREE / "packaging" / "oci.py"), *words], check=True)
    return layout


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """Return what a descriptor names; it has that size and digest."""
    kind, digest = descriptor["digest"].split(":")
    content = (layout / "blobs" / kind / digest).read_bytes()
    assert len(content) == descriptor["size"]
    assert hashlib.sha256(content).hexdigest() == digest
    return content


def named(layout: Path, name: str) -> dict[str, Any]:
    """Return the record that a name leads to."""
    top = json.loads((layout / "index.json").read_text())["manifests"]
    (found,) = (each for each in top if each["annotations"]["org.opencontainers.image.ref.name"] == name)
    record: dict[str, Any] = json.loads(blob(layout, found))
    return record


def test_one_name_leads_to_the_image_of_each_processor(root: Path, tmp_path: Path) -> None:
    layout = write(root, tmp_path / "oci")
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    manifests = named(layout, "0.1.0")["manifests"]
    assert [each["platform"]["architecture"] for each in manifests] == ["amd64", "arm64"]
    for each in manifests:
        arch = each["platform"]["architecture"]
        manifest = json.loads(blob(layout, each))
        assert manifest == named(layout, f"0.1.0-{arch}")
        config = json.loads(blob(layout, manifest["config"]))
        assert config["architecture"] == arch
        (layer,) = manifest["layers"]
        unpacked = gzip.decompress(blob(layout, layer))
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(unpacked).hexdigest()}"]


def test_a_layer_has_every_file_as_roots_and_of_one_time(root: Path, tmp_path: Path) -> None:
    layout = write(root, tmp_path / "oci")
    (layer,) = named(layout, "0.1.0-amd64")["layers"]
    with tarfile.open(fileobj=io.BytesIO(blob(layout, layer)), mode="r:gz") as archive:
        entries = {entry.name: entry for entry in archive}
    assert list(entries) == ["bin", "usr", "usr/bin", "usr/bin/conflux"]
    assert entries["bin"].linkname == "usr/bin"
    assert entries["usr/bin/conflux"].mode == 0o755
    assert {(each.uid, each.gid, each.uname, each.mtime) for each in entries.values()} == {(0, 0, "", SECONDS)}


def test_the_same_files_are_the_same_bytes_at_any_time(root: Path, tmp_path: Path) -> None:
    first = write(root, tmp_path / "first")
    os.utime(root / "usr" / "bin" / "conflux", (1, 1))
    second = write(root, tmp_path / "second")
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)
