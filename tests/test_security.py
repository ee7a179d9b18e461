"""What SECURITY.md promises, where no other test holds it."""

import ast
import copy
import pickle
import re
from pathlib import Path

import pytest
import torch
from conftest import REPO

from unlearnkit.core.encoding import Template
from unlearnkit.core.files import UserError
from unlearnkit.core.markdown import table
from unlearnkit.unlearn.mask.mask_file import load_tensors

FILES = sorted((REPO / "src").rglob("*.py"))
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("os.system", "os.popen", "os.execv", "os.spawnv", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open", "joblib.load"),
    *("yaml.load", "yaml.unsafe_load", "numpy.load", "np.load"),
}


def calls(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def keywords(node: ast.Call) -> dict[str, str]:
    return {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}


def faults(path: Path) -> list[str]:
    """Calls that run code from data, or a shell."""
    found = []
    for node, name in calls(path):
        given = keywords(node)
        if (
            name in FORBIDDEN_CALLS
            or given.get("shell") not in (None, "False")
            or (name.endswith("torch.load") and given.get("weights_only") != "True")
            or given.get("trust_remote_code") == "True"
        ):
            found.append(f"{path.name}:{node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_runs_code_from_data_or_a_shell(path):
    assert faults(path) == []


@pytest.mark.parametrize(
    "line",
    [
        *("eval('1')", "os.system('ls')", "pickle.load(file)", "subprocess.run('ls', shell=True)"),
        *("torch.load(path)", "torch.load(path, weights_only=False)"),
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_search_finds_what_is_forbidden(line, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(line)
    assert len(faults(path)) == 1
    path.write_text("model.eval()\ntorch.load(path, weights_only=True)\nsubprocess.run(['ls'])")
    assert faults(path) == []


class Payload:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_mask_that_would_run_code_is_refused_before_it_does(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "mask.pt"
    torch.save({"weight": Payload(mark)}, path)
    with pytest.raises(UserError, match="holds more than tensors, so it is not opened"):
        load_tensors(path)
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"weight": Payload(mark)}))
    with pytest.raises(UserError):
        load_tensors(tmp_path / "old.pt")
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_chat_template_cannot_leave_its_sandbox(text, tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = text
    with pytest.raises(UserError, match="the tokenizer's chat template .* fails"):
        Template(tokenizer)


def test_what_a_model_wrote_is_text_in_a_table():
    (_, _, line) = table(["text"], [["<img src=x onerror=alert(1)> | a\nb"]]).splitlines()
    assert line == r"| \<img src=x onerror=alert(1)> \| a\nb |"


def test_every_test_that_the_page_names_exists():
    page = (REPO / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) >= 10
    for path, name in named:
        assert f"def {name}(" in (REPO / path).read_text(), name
