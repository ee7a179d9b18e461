"""Files that are nearly right: mutations of valid ones, drawn by hypothesis. The same draws in every run.

FUZZ_EXAMPLES=5000 makes more of them than the committed count.
"""

import copy
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from unlearnkit.core.files import UserError

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "300")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

JUNK = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2, 7, 1.5, -1e4, 1e300, 1e-320, 10**400, 2**63),
        *(math.nan, math.inf, -math.inf),
        *(
            "",
            " ",
            "x",
            "0",
            "null",
            "\ud83d",
            "\udc00 x",
            "\ud83d\ude00",
            "\x00",
            "\x1b[31m",
            "[b]",
            "a" * 300,
        ),
        *([], {}, [1], [None], [[]], ["x"], [""], ["\ud83d"], {"a": 1}, {"": {}}, [[[[["deep"]]]]]),
    ]
).map(copy.deepcopy) | st.text(max_size=5)


def nodes(tree, path=()) -> list[tuple]:
    """The paths to every value of a JSON tree."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for key, value in inner for found in nodes(value, (*path, key)))]


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


@st.composite
def mutated(draw, tree):
    """A JSON value with one to three changes: a value replaced, wrapped, taken from elsewhere, dropped, under
    another name, or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        paths = nodes(tree)
        path = draw(st.sampled_from(paths))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(JUNK)
            continue
        parent, key, value = at(tree, path[:-1]), path[-1], at(tree, path)
        change = draw(
            st.sampled_from(["replace", "replace", "replace", "wrap", "other", "drop", "rename", "add"])
        )
        if change == "replace":
            parent[key] = draw(JUNK)
        elif change == "wrap":
            parent[key] = draw(st.sampled_from([[value], {"x": value}, json.dumps(value), [value, value]]))
        elif change == "other":
            parent[key] = copy.deepcopy(at(tree, draw(st.sampled_from(paths))))
        elif change == "drop":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, draw(JUNK))
        else:
            name = draw(
                st.sampled_from(["", "x", "id", "text", "prompt", "\ud83d", str(key).upper(), "-1", "0"])
            )
            parent[name] = parent.pop(key) if change == "rename" else draw(JUNK)
    return tree


@st.composite
def broken(draw, text: str) -> bytes:
    """The bytes of a text, most often as they are, else cut, with some bytes lost, doubled or foreign."""
    content = text.encode()
    if draw(st.integers(0, 3)):
        return content
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 20)))
    extra = [
        b"",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\x00",
        b"{",
        b"]",
        b'"',
        b"\n",
        b"\r\n",
        b"\\ud83d",
        b"1e999",
        b"NaN",
    ]
    return draw(
        st.sampled_from(
            [
                content[:start],
                content[:start] + content[end:],
                content[:end] + content[start:],
                *(content[:start] + piece + content[end:] for piece in extra),
            ]
        )
    )


def json_files(tree) -> st.SearchStrategy[bytes]:
    """The bytes of a JSON file that is nearly this value."""
    return mutated(tree).flatmap(lambda value: broken(json.dumps(value)))


def jsonl_files(rows: list) -> st.SearchStrategy[bytes]:
    """The bytes of a file of JSON lines that are nearly these."""
    lines = lambda tree: (
        "".join(json.dumps(row) + "\n" for row in tree) if isinstance(tree, list) else json.dumps(tree)
    )
    return mutated(rows).flatmap(lambda tree: broken(lines(tree)))


def value_or_refusal(read: Callable, *names: str | Path):
    """What `read()` gives, or None after a UserError, which must be one line that can be printed and has one
    of the names in it."""
    try:
        return read()
    except UserError as error:
        told = str(error)
        told.encode()
        assert "\n" not in told
        assert not names or any(str(name) in told for name in names), told
        return None
