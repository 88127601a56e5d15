"""What is in an image: a bill of materials in SPDX, and a list of licences, from dpkg's database and apt's lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from recipe import layout

SPDX_ID_UNFIT = re.compile(r"[^A-Za-z0-9.-]")
SHORT_NAME = re.compile(r"License: *(\S.*?) *\Z")
PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """One package of an image.

    kind: deb or pypi.  sha256: of the archive it came in, or "" where that was made here.  licences: short names, as
    its copyright file has them.
    """

    kind: str
    name: str
    version: str
    arch: str = ""
    source: str = ""
    sha256: str = ""
    licences: tuple[str, ...] = ()

    @property
    def purl(self) -> str:
        """The package's address, as https://github.com/package-url has it."""
        version = self.version.replace("+", "%2B").replace(":", "%3A").replace("~", "%7E")
        if self.kind == "deb":
            return f"pkg:deb/debian/{self.name.replace('+', '%2B')}@{version}?arch={self.arch}"
        return f"pkg:pypi/{self.name.lower()}@{version}"


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Yield the paragraphs of a file in Debian's control format; of a value the first line only."""
    for block in text.split("\n\n"):
        fields = {}
        for line in block.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line[:1].isspace():
                fields[name] = value.strip()
        if fields:
            yield fields


def installed(status: str) -> list[Package]:
    """Return the packages that dpkg's database says are installed, by name."""
    packages = []
    for fields in paragraphs(status):
        if fields.get("Status") == "install ok installed":
            source = fields.get("Source", fields["Package"]).partition(" ")[0]
            packages.append(Package("deb", fields["Package"], fields["Version"], fields["Architecture"], source))
    return sorted(packages, key=lambda each: (each.name, each.arch))


def archives(lists: Iterable[str]) -> dict[tuple[str, str, str], str]:
    """Return the SHA-256 of every archive that apt's lists name, by package, version and architecture."""
    found = {}
    for text in lists:
        for fields in paragraphs(text):
            if "SHA256" in fields:
                found[fields["Package"], fields["Version"], fields["Architecture"]] = fields["SHA256"]
    return found


def newest(lists: Iterable[str], names: Iterable[str]) -> list[Package]:
    """Return packages of the lists by name, each in the last version that is listed."""
    wanted, found = set(names), {}
    for text in lists:
        for fields in paragraphs(text):
            if fields.get("Package") in wanted:
                source = fields.get("Source", fields["Package"]).partition(" ")[0]
                found[fields["Package"]] = Package(
                    "deb", fields["Package"], fields["Version"], fields["Architecture"], source, fields["SHA256"]
                )
    return sorted(found.values(), key=lambda each: each.name)


def pinned(requirements: str) -> list[Package]:
    """Return the Python packages of a list of pip's with versions; of several hashes none is named."""
    packages = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", requirements):
        match = PINNED.match(block.strip())
        if match:
            hashes = HASH.findall(block)
            packages.append(Package("pypi", match[1], match[2], sha256=hashes[0] if len(hashes) == 1 else ""))
    return sorted(packages, key=lambda each: each.name.lower())


def licences_of(copyright_file: str) -> tuple[str, ...]:
    """Return the short names of licences in a copyright file that machines can read, each once; else ()."""
    if not copyright_file.startswith("Format:"):
        return ()
    found = {match[1] for line in copyright_file.splitlines() if (match := SHORT_NAME.match(line))}
    return tuple(sorted(found))


def spdx(name: str, version: str, seconds: int, packages: Iterable[Package]) -> str:
    """Return a bill of materials: SPDX 2.3, as JSON.  seconds: Unix time that it is dated."""
    created = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    entries, relations = [], []
    for each in packages:
        identifier = f"SPDXRef-{each.kind}-{SPDX_ID_UNFIT.sub('-', each.name)}"
        entry: dict[str, object] = {
            "SPDXID": identifier,
            "name": each.name,
            "versionInfo": each.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [
                {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": each.purl}
            ],
        }
        if each.licences:
            # Debian's short names are not all SPDX's, hence words, and no expression.
            entry["licenseComments"] = f"Debian's short names: {', '.join(each.licences)}"
        if each.source:
            entry["sourceInfo"] = f"built from Debian's source package {each.source}"
        if each.sha256:
            entry["checksums"] = [{"algorithm": "SHA256", "checksumValue": each.sha256}]
        entries.append(entry)
        relations.append(
            {"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": identifier}
        )
    image = {
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    }
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{name}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{version}-{layout.identifier(version, name)}",
        "creationInfo": {"created": created, "creators": ["Tool: conflux-images"]},
        "documentDescribes": ["SPDXRef-image"],
        "packages": [image, *entries],
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": "SPDXRef-image",
            },
            *relations,
        ],
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def licence_list(name: str, version: str, packages: Iterable[Package]) -> str:
    """Return a list of licences for people: each package, and what its copyright file names."""
    lines = [
        f"{name} {version}: the licences of what it holds",
        "",
        "The full texts are in the image: /usr/share/doc/PACKAGE/copyright, and /usr/share/common-licenses.",
        "Names are those of Debian's copyright files; where one has no names, it has to be read.",
        "",
    ]
    for each in packages:
        terms = ", ".join(each.licences) or "see its text"
        lines += [f"{each.kind:5} {each.name} {each.version}: {terms}"]
    return "\n".join([*lines, ""])


def with_licences(packages: Iterable[Package], documents: Path) -> list[Package]:
    """Return packages with the licences that usr/share/doc of a root tree names."""
    complete = []
    for each in packages:
        path = documents / each.name / "copyright"
        text = path.read_text(errors="replace") if path.is_file() and not escapes(path, documents) else ""
        complete.append(replace(each, licences=licences_of(text)))
    return complete


def escapes(path: Path, documents: Path) -> bool:
    """Tell whether a path leads out of a folder, by a link of a root tree that means another root."""
    return not path.resolve().is_relative_to(documents.resolve())


def with_archives(packages: Iterable[Package], found: Mapping[tuple[str, str, str], str]) -> list[Package]:
    """Return packages with the hashes of the archives that they came in."""
    return [replace(each, sha256=found.get((each.name, each.version, each.arch), each.sha256)) for each in packages]
