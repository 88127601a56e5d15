"""The kernel's list of mounts, read."""

from __future__ import annotations

from conflux.board.mounts import Mount, mounts

LIST = """\
36 35 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw
40 36 0:30 / /media/my\\040card rw master:1 shared:2 - tmpfs a\\134b rw,size=32m
no mount
41 36 8:2 /
42 36 8:2 / /mnt rw - ext4
43 36 8:2 / /mnt rw - vfat /dev/sda2 rw
"""


def test_mounts_are_read_in_their_order_and_lines_that_are_none_are_left_out(tmp_path):
    (tmp_path / "mountinfo").write_text(LIST)
    assert list(mounts(tmp_path / "mountinfo")) == [
        Mount("8:1", "/", "ext4", "/dev/sda1"),
        Mount("0:30", "/media/my card", "tmpfs", "a\\b"),
        Mount("8:2", "/mnt", "vfat", "/dev/sda2"),
    ]


def test_a_list_that_cannot_be_read_is_empty(tmp_path):
    assert list(mounts(tmp_path / "none")) == []


def test_this_hosts_own_list_has_a_root():
    assert "/" in {mount.place for mount in mounts()}
