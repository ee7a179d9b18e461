"""Page of all registered metrics, docs/metrics.md."""

from .spec import ARROWS, METRICS, families

HEAD = """# Metrics

Written by `python src/exec/make_docs.py` from the registry; a test compares. Every figure comes with the
number of rows, the number of rows that could not be scored, and a 95 % bootstrap interval over rows
(`metrics_detail.json`). What cannot be measured is null, with the reason beside it. Row sets: *forget*,
*retain* (rows kept apart for measuring where a data set has them), *real* and *world* (general knowledge). Up
(↑) or down (↓) is what unlearning wants.

Words of any script count: runs of letters, marks and numbers, single characters where a script has no blanks
between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan), and emoji. On ASCII text ROUGE equals
that of the rouge_score package to the digit; beyond ASCII that package drops letters.
"""


def render() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for family in families():
        parts.append(f"\n## {family}\n\n| metric | good | formula, range, blind spot |\n|---|---|---|\n")
        parts += [
            f"| `{name}` | {ARROWS[found.good]} | {found.about} |\n"
            for name, found in METRICS.items()
            if found.family == family
        ]
    return "".join(parts)
