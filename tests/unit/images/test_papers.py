"""The bill of materials and the licences of an image."""

from __future__ import annotations

import json

from recipe.papers import (
    Package,
    archives,
    escapes,
    installed,
    licence_list,
    licences_of,
    newest,
    pinned,
    spdx,
    with_archives,
    with_licences,
)  # fmt: skip

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: arm64
Source: glibc (2.41-12)
Version: 2.41-12+b1
Description: C library
 Version: of the description is none

Package: gone
Status: deinstall ok config-files
Architecture: arm64
Version: 1

Package: base-files
Status: install ok installed
Architecture: arm64
Version: 13.8
"""
LISTS = [
    "Package: libc6\nVersion: 2.41-12+b1\nArchitecture: arm64\nSHA256: aa\n\n"
    "Package: base-files\nVersion: 13.7\nArchitecture: arm64\nSHA256: bb\n",
    "Package: u-boot-rpi\nVersion: 2025.01-3\nArchitecture: arm64\nSource: u-boot\nSHA256: cc\n",
]
COPYRIGHT = (
    "Format: https://x\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: y\nLicense:  LGPL-2.1 \n\nLicense: GPL-2+\n"
)


def test_what_dpkg_has_installed_is_listed_by_name():
    found = installed(STATUS)
    assert [(each.name, each.version, each.source) for each in found] == [
        ("base-files", "13.8", "base-files"),
        ("libc6", "2.41-12+b1", "glibc"),
    ]


def test_a_hash_is_that_of_the_version_that_is_installed():
    found = with_archives(installed(STATUS), archives(LISTS))
    assert [each.sha256 for each in found] == ["", "aa"]


def test_firmware_that_dpkg_does_not_know_is_found_in_the_lists():
    assert newest(LISTS, ["u-boot-rpi", "none"]) == [Package("deb", "u-boot-rpi", "2025.01-3", "arm64", "u-boot", "cc")]


def test_licences_are_those_that_a_copyright_file_names():
    assert licences_of(COPYRIGHT) == ("GPL-2+", "LGPL-2.1")
    assert licences_of("This is free software.\nLicense: perhaps\n") == ()


def test_licences_come_from_the_root_tree_and_not_from_this_machine(tmp_path):
    documents = tmp_path / "root/usr/share/doc"
    (documents / "libc6").mkdir(parents=True)
    (documents / "libc6/copyright").write_text(COPYRIGHT)
    (tmp_path / "outside").write_text(COPYRIGHT)
    (documents / "base-files").mkdir()
    (documents / "base-files/copyright").symlink_to(tmp_path / "outside")
    assert escapes(documents / "base-files/copyright", documents)
    found = with_licences(installed(STATUS), documents)
    assert [each.licences for each in found] == [(), ("GPL-2+", "LGPL-2.1")]


def test_python_packages_are_those_of_a_list_of_pips():
    text = (
        "cbor2==6.0.1 \\\n    --hash=sha256:"
        + "a" * 64
        + "\nZeroconf==0.154 \\\n"
        + "".join(f"    --hash=sha256:{each * 64} \\\n" for each in "bc")
    )
    assert pinned(text) == [Package("pypi", "cbor2", "6.0.1", sha256="a" * 64), Package("pypi", "Zeroconf", "0.154")]


def test_a_bill_of_materials_names_every_package_once_and_the_image_holds_it():
    packages = [*with_archives(installed(STATUS), archives(LISTS)), Package("pypi", "cbor2", "6.0.1")]
    document = json.loads(spdx("conflux-x", "1.2+3", 86400, packages))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["creationInfo"]["created"] == "1970-01-02T00:00:00Z"
    identifiers = [each["SPDXID"] for each in document["packages"]]
    assert len(set(identifiers)) == len(packages) + 1
    held = [each["relatedSpdxElement"] for each in document["relationships"] if each["relationshipType"] == "CONTAINS"]
    assert ["SPDXRef-image", *held] == identifiers
    by_name = {each["name"]: each for each in document["packages"]}
    assert by_name["libc6"]["checksums"] == [{"algorithm": "SHA256", "checksumValue": "aa"}]
    assert by_name["libc6"]["externalRefs"][0]["referenceLocator"] == "pkg:deb/debian/libc6@2.41-12%2Bb1?arch=arm64"
    assert "checksums" not in by_name["cbor2"]


def test_a_name_that_spdx_does_not_allow_is_changed_in_its_identifier_alone():
    document = json.loads(spdx("x", "1", 0, [Package("deb", "libstdc++6", "14", "arm64")]))
    assert (document["packages"][1]["SPDXID"], document["packages"][1]["name"]) == (
        "SPDXRef-deb-libstdc--6",
        "libstdc++6",
    )


def test_the_same_image_has_the_same_bill():
    assert spdx("x", "1", 0, installed(STATUS)) == spdx("x", "1", 0, installed(STATUS))
    assert spdx("x", "1", 0, []) != spdx("x", "2", 0, [])


def test_the_list_of_licences_says_where_one_has_to_be_read():
    said = licence_list("x", "1", [Package("deb", "a", "1", licences=("MIT",)), Package("deb", "b", "2")])
    assert "deb   a 1: MIT\n" in said
    assert "deb   b 2: see its text\n" in said
