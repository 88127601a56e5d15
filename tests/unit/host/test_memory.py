"""The memory of this process, as /proc shows it."""

import pytest

from conflux.host import memory


def test_a_process_holds_memory_and_its_share_is_not_larger():
    now = memory.memory()
    assert now.rss_bytes is not None
    assert now.rss_bytes > 1e6
    assert now.pss_bytes is None or now.pss_bytes <= now.rss_bytes + 1e6


@pytest.mark.parametrize(
    ("text", "size"), [("Name:\tx\nPss:\t  2560 kB\n", 2_621_440), ("Name:\tx\n", None), (None, None)]
)
def test_a_figure_that_the_kernel_does_not_give_is_none(tmp_path, text, size):
    path = tmp_path / "smaps_rollup"
    if text is not None:
        path.write_text(text)
    assert memory._bytes(path, "Pss:") == size
