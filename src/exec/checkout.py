"""Start of every script that is run as a file: this checkout becomes the package `unlearnkit`, whatever else
is installed, and a Python that cannot run it ends with one line.

    if not __package__:
        import os
        import runpy

        __package__ = runpy.run_path(os.path.join(os.path.dirname(__file__), "checkout.py"))["PACKAGE"]

(`import checkout` would need the script's folder on the path, where `runpy` does not put it.)

This file must parse in any Python from 3.8 and imports the standard library alone.
"""

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
VENV = REPO / ".venv" / "bin" / "python"
PACKAGE = "unlearnkit.exec"

OLDEST = (3, 11)
PACKAGES = (
    *("torch", "transformers", "accelerate", "datasets", "peft", "safetensors", "tokenizers"),
    *("numpy", "scipy", "regex", "rouge_score", "fastargs", "rich", "requests", "tqdm"),
    "huggingface_hub",
)
"""Packages of every run; those of some settings are checked with these settings."""


def fault(version, missing):
    """The reason why this Python cannot run the project, and a remedy, in one line; empty when it can."""
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        problem = f"is Python {version[0]}.{version[1]}, and {oldest} or later is needed"
        remedy = f"make demo PYTHON=python{oldest} installs one in .venv"
    elif missing:
        more = f" and {len(missing) - 3} more packages" if len(missing) > 3 else ""
        problem = f"lacks {', '.join(missing[:3])}{more}"
        install = f"{sys.executable} -m pip install -r {REPO / 'requirements.txt'}"
        remedy = f"make demo installs all of them in .venv; or {install}"
    else:
        return ""
    if VENV.exists() and not VENV.parent.samefile(Path(sys.executable).parent):
        remedy = f"start the script with {VENV}"
    return f"error: {sys.executable} {problem}: {remedy}"


def is_loaded():
    """Whether this process has the package."""
    return PACKAGE.partition(".")[0] in sys.modules


def load():
    """Make `src` of this checkout the package `unlearnkit`, unless one is loaded."""
    name, root = PACKAGE.partition(".")[0], HERE.parent
    if not is_loaded():
        spec = spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
        assert spec and spec.loader, root
        sys.modules[name] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    # A script's own folder comes first on the path: its file names must not hide those of libraries.
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != HERE]


def quiet_interrupts():
    """Let Ctrl-C end in one line also where no script has begun its work, while libraries are loaded."""
    before = sys.excepthook

    def hook(kind, error, trace):
        if issubclass(kind, KeyboardInterrupt):
            sys.stderr.write("interrupted; nothing was started\n")
        else:
            before(kind, error, trace)

    sys.excepthook = hook


quiet_interrupts()
# A process that has loaded the package has passed the check.
_missing = [name for name in PACKAGES if find_spec(name) is None] if not is_loaded() else []
if _fault := fault(sys.version_info[:2], _missing):
    sys.exit(_fault)
load()
