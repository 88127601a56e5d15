"""Write a container image as a folder in the OCI layout: the same bytes for the same files, and no daemon.

    python3 packaging/oci.py LAYOUT VERSION SECONDS ARCH=ROOT...

    LAYOUT/oci-layout, index.json     VERSION names an index of all processors: podman, skopeo choose from it
                                      VERSION-ARCH names the image of one: umoci wants this
    LAYOUT/blobs/sha256/...           index, manifests, configurations, and one layer for each ROOT

SECONDS: Unix time of every file and of the image, so that two builds of one commit are one image.
What stands here about media types is https://github.com/opencontainers/image-spec/blob/v1.1.0/.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

MEDIA = "application/vnd.oci.image."
INDEX, MANIFEST, CONFIG, LAYER = (
    MEDIA + name for name in ("index.v1+json", "manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip")
)
STATE = "/var/lib/conflux"
PROGRAM = ["/usr/bin/conflux"]


class Blobs:
    """The blobs of a layout, each in a file that has its digest for a name."""

    def __init__(self, layout: Path) -> None:
        self.folder = layout / "blobs" / "sha256"
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, media: str, content: bytes) -> dict[str, Any]:
        """Write a blob and return its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def add_record(self, media: str, record: dict[str, Any]) -> dict[str, Any]:
        """Write a blob of JSON and return its descriptor."""
        return self.add(media, json.dumps(record, sort_keys=True, separators=(",", ":")).encode())

    def add_layer(self, root: Path, seconds: int) -> tuple[dict[str, Any], str]:
        """Write a root as a layer; return its descriptor, and the digest of what it unpacks to."""
        part = self.folder / "part"
        unpacked = hashlib.sha256()
        with (
            part.open("wb") as file,
            # No time and no name in the header: the bytes are those of the content.
            gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed,
            tarfile.open(
                fileobj=cast(IO[bytes], Both(packed, unpacked)), mode="w|", format=tarfile.PAX_FORMAT
            ) as archive,
        ):
            for path in below(root):
                add(archive, path, str(path.relative_to(root)), seconds)
        with part.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        size = part.stat().st_size
        part.replace(self.folder / digest)
        layer = {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": size}
        return layer, f"sha256:{unpacked.hexdigest()}"


class Both:
    """A file that writes what it gets to another one, and to a hash."""

    def __init__(self, file: gzip.GzipFile, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, content: bytes) -> int:
        self._digest.update(content)
        return self._file.write(content)


def below(root: Path) -> Iterator[Path]:
    """Yield all that is below a folder, in one order on every machine; no link is followed."""
    for path in sorted(root.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from below(path)


def add(archive: tarfile.TarFile, path: Path, name: str, seconds: int) -> None:
    """Add a file, folder or link under a name, as root's and of one time."""
    entry = archive.gettarinfo(path, name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = seconds
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)


def image(blobs: Blobs, version: str, seconds: int, arch: str, root: Path) -> dict[str, Any]:
    """Write the image of one processor, and return the descriptor of its manifest."""
    layer, unpacked = blobs.add_layer(root, seconds)
    created = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    platform = {"architecture": arch, "os": "linux", **({"variant": "v8"} if arch == "arm64" else {})}
    config = blobs.add_record(
        CONFIG,
        {
            **platform,
            "created": created,
            "config": {
                "Entrypoint": PROGRAM,
                "Cmd": ["up", "--foreground"],
                "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
                "Volumes": {STATE: {}},
                "StopSignal": "SIGTERM",
                "Labels": {
                    "org.opencontainers.image.title": "conflux",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [unpacked]},
            "history": [{"created": created, "created_by": "packaging/oci.py"}],
        },
    )
    manifest = blobs.add_record(
        MANIFEST, {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    )
    return {**manifest, "platform": platform}


def named(descriptor: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a descriptor that tools find by a name."""
    return {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}


def write(layout: Path, version: str, seconds: int, roots: Sequence[tuple[str, Path]]) -> None:
    """Write the whole layout.  roots: Debian's name of a processor, and a folder."""
    blobs = Blobs(layout)
    images = [image(blobs, version, seconds, arch, root) for arch, root in roots]
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": images}
    names = [named(blobs.add_record(INDEX, index), version)]
    names += [named(each, f"{version}-{each['platform']['architecture']}") for each in images]
    top = {"schemaVersion": 2, "mediaType": INDEX, "manifests": names}
    (layout / "index.json").write_text(json.dumps(top, sort_keys=True))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def main() -> None:
    """Write what the command line names."""
    layout, version, seconds, *roots = sys.argv[1:]
    pairs = [(arch, Path(root)) for arch, _, root in (each.partition("=") for each in roots)]
    write(Path(layout), version, int(seconds), pairs)


if __name__ == "__main__":
    main()
