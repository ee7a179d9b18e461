"""Imported first by every script: ends it with one line where the Python that runs it cannot.

Any Python from 3.8 must be able to read this file, and nothing but the standard library is imported.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

OLDEST = (3, 11)
PACKAGES = (
    *("torch", "transformers", "accelerate", "datasets", "peft", "safetensors", "tokenizers"),
    *("numpy", "scipy", "regex", "rouge_score", "fastargs", "rich", "requests", "tqdm"),
)
"""What every run needs; packages that only some settings need are checked with those settings."""
REPO = Path(__file__).resolve().parents[2]
VENV = REPO / ".venv" / "bin" / "python"


def fault(version, missing):
    """Why this Python cannot run the project and what can, in one line; empty when it can."""
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


_fault = fault(sys.version_info[:2], [name for name in PACKAGES if find_spec(name) is None])
if _fault:
    sys.exit(_fault)
