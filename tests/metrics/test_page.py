from conftest import REPO

from metrics.page import render


def test_the_committed_page_is_the_registrys():
    assert (REPO / "docs/metrics.md").read_text() == render()
