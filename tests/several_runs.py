"""Do several runs of unlearn_model.py one after the other, in each process of a launcher.

python tests/several_runs.py runs.json
"""

import json
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS))

from scripts import run_script  # noqa: E402

if __name__ == "__main__":
    for words in json.loads(Path(sys.argv[1]).read_text()):
        done = run_script("unlearn_model", *words)
        if done.returncode:
            sys.exit(f"{words} ended with {done.returncode}:\n{done.stderr}")
