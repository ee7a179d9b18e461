import pytest

from core.files import UserError
from core.registry import Registry


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
