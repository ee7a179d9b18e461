import pytest

from unlearnkit.core.files import UserError
from unlearnkit.core.registry import Registry, near_path


def test_find_resolves_aliases_and_case_and_answers_with_near_names():
    registry = Registry("colour")
    registry.register("Crimson", "red")(1)
    registry.register("Azure")(2)
    assert registry.find("crimson") == registry.find("RED") == 1
    with pytest.raises(UserError, match="unknown colour 'Crimsn'; did you mean Crimson"):
        registry.find("Crimsn")
    with pytest.raises(UserError, match="there are Crimson, Azure"):
        registry.find("zzzzzz")
    with pytest.raises(ValueError, match="twice"):
        registry.register("azure")(3)


def test_a_path_that_is_not_there_is_answered_with_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "configs" / "tofu").mkdir(parents=True)
    (tmp_path / "configs" / "tofu" / "npo+ft.json").touch()
    monkeypatch.chdir(tmp_path)
    for wrong in ("configs/tofu/NPO+FT.json", "Configs/TOFU/npo+ft.json", "config/tofu/npo+ft"):
        assert near_path(wrong) == "; did you mean configs/tofu/npo+ft.json?"
    assert near_path(tmp_path / "Configs") == f"; did you mean {tmp_path / 'configs'}?"
    for far in ("other/tofu/npo+ft.json", "configs/tofu/npo+ft.json/x", "x" * 5000, ""):
        assert near_path(far) in ("", "; did you mean .?")
