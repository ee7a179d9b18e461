"""Config files that are nearly right: settings, or complaints that name the file."""

import json

import pytest
from conftest import REPO
from fuzz import fuzz, json_files
from hypothesis import given
from hypothesis import strategies as st

from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.model.settings.run_settings import Settings

pytestmark = pytest.mark.slow

CONFIGS = [
    json.loads((REPO / "configs" / name).read_text())
    for name in ("fictional/npo+ft.json", "reasoning/r2mu.json", "fictional/gao.json", "wmdp/rmu.json")
    if (REPO / "configs" / name).is_file()
]


@fuzz
@given(st.sampled_from(CONFIGS).flatmap(json_files))
def test_configs(tmp_path, monkeypatch, content):
    monkeypatch.chdir(REPO)
    path = tmp_path / "config.json"
    path.write_bytes(content)
    try:
        assert isinstance(resolve_settings(StrictConfig(), [str(path)], {}, {}), Settings)
    except ConfigError as complaints:
        told = str(complaints)
        told.encode()
        assert all(line.startswith("  ") for line in told.splitlines())


@fuzz
@given(st.data())
def test_command_lines(monkeypatch, data):
    monkeypatch.chdir(REPO)
    config = StrictConfig()
    keys = st.sampled_from([".".join(path) for path in config.entries])
    words = st.sampled_from(
        ["", "null", "-1", "1e400", "NaN", "true", "a,b", ",", "\udcff", "[]", "~", "\x00"]
    ) | st.text(max_size=6)
    flags = data.draw(st.dictionaries(keys, words, min_size=1, max_size=4))
    try:
        assert isinstance(resolve_settings(config, [], flags, {}), Settings)
    except ConfigError as complaints:
        str(complaints).encode()
