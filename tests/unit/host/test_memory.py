"""The memory of this process, as /proc shows it."""

import pytest

from conflux.host import memory


def test_a_process_holds_memory_and_its_share_is_not_larger():
    now = memory.memory()
    assert now.rss_mb is not None
    assert now.rss_mb > 1
    assert now.pss_mb is None or now.pss_mb <= now.rss_mb + 1


@pytest.mark.parametrize(
    ("text", "megabytes"), [("Name:\tx\nPss:\t  2560 kB\n", 2.5), ("Name:\tx\n", None), (None, None)]
)
def test_a_figure_that_the_kernel_does_not_give_is_none(tmp_path, text, megabytes):
    path = tmp_path / "smaps_rollup"
    if text is not None:
        path.write_text(text)
    assert memory._megabytes(path, "Pss:") == megabytes
