"""How well the embedding judge agrees with the rule that knows the key facts, over what finished runs have
answered.

    make semantic && .venv/bin/python benchmarks/judges.py files/results/semantic

Reads samples/forget.jsonl and samples/retain.jsonl of every run under the folder.
"""

import argparse
import sys
from pathlib import Path

if "unlearnkit" not in sys.modules:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src" / "exec"))
    import checkout  # noqa: F401

from sklearn.metrics import cohen_kappa_score

from unlearnkit.core.embedding import MINILM, Embedder
from unlearnkit.core.files import read_jsonl
from unlearnkit.dataset import load_rows
from unlearnkit.metrics.spec import Case
from unlearnkit.metrics.verdicts import RuleJudge

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of run folders on the fictional world")
    parser.add_argument("--embedder", default=MINILM)
    options = parser.parse_args()
    keys = {row["id"]: row["key"] for row in load_rows("Fictional_full", None)}
    files = [
        file
        for name in ("forget", "retain")
        for file in sorted(options.folder.glob(f"*/samples/{name}.jsonl"))
    ]
    cases = [
        Case(row["id"], row["question"], row["answer"], row["generation"], keys[row["id"]])
        for file in files
        for row in read_jsonl(file)
        if row["id"] in keys and "generation" in row
    ]
    rule = RuleJudge().matches(cases)
    print(
        f"{len(cases)} answers of {len({file.parents[1] for file in files})} runs,"
        f" {sum(rule) / len(rule):.3f} of them right by the rule"
    )
    cosines = Embedder(options.embedder).similarity(
        [case.text for case in cases], [case.answer for case in cases]
    )
    for threshold in THRESHOLDS:
        said = [cosine >= threshold for cosine in cosines]
        wrongly = [sum(a == yes != b for a, b in zip(said, rule)) for yes in (True, False)]
        print(
            f"threshold {threshold}: kappa {cohen_kappa_score(said, rule):.3f}, {wrongly[0]} wrong taken for"
            f" right, {wrongly[1]} right for wrong"
        )


if __name__ == "__main__":
    main()
