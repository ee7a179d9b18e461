from conftest import REPO

from unlearnkit.metrics.metrics_page import render


def test_the_committed_page_is_the_registrys():
    assert (REPO / "docs/metrics.md").read_text() == render()
