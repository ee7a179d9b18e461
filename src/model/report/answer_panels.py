"""What the models of a report answer, before and after: to rows to forget and to rows to keep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...core.words import words
from ...metrics.spec import Case
from ...metrics.verdicts import distinctive_words, states
from .finished_run import FinishedRun, Rows
from .panel import Panel, table, text
from .report_charts import BEFORE, RETAIN, Material

LONGEST_TEXT = 700
"""Characters of a generated text that are shown."""
MOST_SAMPLES, MOST_KEPT = 12, 6
"""Rows whose answers are shown: forgotten ones, kept ones."""
MOST_COLUMNS = 5
"""Runs whose answers stand beside each other."""
FORGET, KEEP = "forget", "retain"
"""Beginnings of the names of row sets."""
Verdict = Callable[[Mapping[str, Any], str], str]
"""A row and an answer -> the answer as HTML."""


def forgotten_answers(material: Material) -> Panel:
    """What the models answer to rows that are to be forgotten, leaks first, with their number."""
    title = "Answers before and after: forgotten rows"
    caption = (
        "Marked words are the secret: the key fact of the row, or else the words of the true answer that the"
        " question does not hold. A row that names its key fact leaks where an answer holds it, another where"
        " an answer holds half of those words; the same fact in other words is missed."
    )
    first = next(iter(material.firsts.values()))
    rows = _rows_of(first.samples, FORGET)
    if not rows:
        return Panel(title, caption, reason="no run has generated answers to forget rows")
    chosen = _chosen(rows)
    head = f"<p>Below are {len(chosen)} of the rows, those that leak first{_of(material, first)}.</p>"
    return Panel(title, caption, _leak_counts(material, rows) + head + _cards(material, chosen, FORGET))


def kept_answers(material: Material) -> Panel:
    """What the models answer to rows that are to be kept, the answers that changed most first."""
    title = "Answers before and after: rows to keep"
    caption = "What else changed: what is kept should be answered as before, or as well."
    first = next(iter(material.firsts.values()))
    after, before = _by_id(first.samples, KEEP), _by_id(first.before_samples, KEEP)
    both = [row for identity, row in after.items() if identity in before]
    if not both:
        return Panel(title, caption, reason="no run has generated answers to rows to keep, before and after")
    changed = [row for row in both if row["generation"] != before[row["id"]]["generation"]]
    changed.sort(key=lambda row: _likeness(row) - _likeness(before[row["id"]]))
    chosen, equal = changed[:MOST_KEPT], len(both) - len(changed)
    counts = f"<p>{equal} of {len(both)} answers are as before, word for word{_of(material, first)}.</p>"
    shown = (
        f"<p>Below are {len(chosen)} of the others, those that moved furthest from the true answer first.</p>"
    )
    return Panel(title, caption, counts + (shown if chosen else "") + _cards(material, chosen, KEEP))


def _likeness(row: Mapping[str, Any]) -> float:
    """ROUGE-L of a row's answer; 0 where it was not measured, so that the order stays."""
    return float(row.get("rougeL") or 0.0)


def _cards(material: Material, rows: Sequence[Mapping[str, Any]], side: str) -> str:
    """A card for each row, with the answers of all models."""
    shown = dict(list(material.firsts.items())[:MOST_COLUMNS])
    before = next(iter(shown.values())).before_samples
    after = {name if len(shown) > 1 else "after": run.samples for name, run in shown.items()}
    samples = {BEFORE: before, **after, RETAIN: material.retain_samples}
    answers = {name: _by_id(sets, side) for name, sets in samples.items()}
    verdict = _verdict if side == FORGET else _plain_answer
    return "".join(
        _card(row, {name: found.get(row["id"]) for name, found in answers.items()}, verdict) for row in rows
    )


def _of(material: Material, run: FinishedRun) -> str:
    return f" in {text(run.title)}" if len(material.runs) > 1 else ""


def _leak_counts(material: Material, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many answers of each model leak: also those of the retain model, which never saw the secrets."""
    asked = {row["id"]: row for row in rows}
    lines = [(run.title, _leak_count(asked, _rows_of(run.samples, FORGET))) for run in material.runs]
    before = next((found for run in material.runs if (found := _rows_of(run.before_samples, FORGET))), [])
    if before:
        lines.insert(0, (f"{BEFORE} unlearning", _leak_count(asked, before)))
    never_saw = f"{RETAIN}: it never saw the rows, so these leak by chance"
    if retain := _leak_count(asked, _rows_of(material.retain_samples, FORGET)):
        lines.append((never_saw, retain))
    elif material.retain:
        lines.append((never_saw, "not measured: its results have no answers to these rows"))
    else:
        lines.append(("by chance", "not measured: that needs a retain model (evaluate.retain_results)"))
    cells = [[text(name), text(count or "no answers")] for name, count in lines]
    return table(["model", "answers that leak by this rule"], cells)


def _leak_count(asked: Mapping[str, Mapping], answers: Sequence[Mapping[str, Any]]) -> str:
    """`3 of 100`; empty without an answer to any of the rows. Which words are the secret, the asked row says:
    results of earlier versions do not name the key facts."""
    found = [_leaks(asked[row["id"]], row["generation"]) for row in answers if row.get("id") in asked]
    return f"{sum(found)} of {len(found)}" if found else ""


def _by_id(sets: Rows, side: str) -> dict[str, Mapping[str, Any]]:
    return {row["id"]: row for row in _rows_of(sets, side)}


def _rows_of(sets: Rows, side: str) -> list[Mapping[str, Any]]:
    """The rows with generated texts, of the set of that side that has some."""
    for name in (side, *sorted(name for name in sets if name.startswith(side))):
        found = [row for row in sets.get(name, ()) if isinstance(row.get("generation"), str)]
        if found:
            return found
    return []


def _chosen(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Leaks and others, half and half where there are enough, in their order."""
    leaks = [row for row in rows if _leaks(row, row["generation"])]
    others = [row for row in rows if not _leaks(row, row["generation"])]
    half = MOST_SAMPLES // 2
    taken = leaks[: max(half, MOST_SAMPLES - len(others))]
    return [*taken, *others[: MOST_SAMPLES - len(taken)]]


def _question(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("question", row.get("prompt", ""))), str(row.get("answer", row.get("gt", "")))


def _leaks(row: Mapping[str, Any], answer: str) -> bool:
    question, truth = _question(row)
    return states(answer, Case(str(row.get("id", "")), question, truth, answer, row.get("key")))


def _card(row: Mapping[str, Any], answers: Mapping[str, Mapping | None], verdict: Verdict) -> str:
    """A question with the true answer and those of the models."""
    question, truth = _question(row)
    parts = [f"<dt>true</dt><dd>{text(_cut(truth))}</dd>"]
    parts += [_answer(name, row, found, verdict) for name, found in answers.items() if found]
    return f'<article><h3>{text(_cut(question))}</h3><dl class="answers">{"".join(parts)}</dl></article>'


def _answer(title: str, row: Mapping[str, Any], found: Mapping[str, Any], verdict: Verdict) -> str:
    answer = str(found.get("generation", ""))
    parts = [verdict(row, answer)]
    trace = found.get("thinking_generation")
    if isinstance(trace, str) and trace != answer:
        parts.append(f"<details open><summary>with its trace</summary>{verdict(row, trace)}</details>")
    return f"<dt>{text(title)}</dt><dd>{''.join(parts)}</dd>"


def _verdict(row: Mapping[str, Any], answer: str) -> str:
    question, truth = _question(row)
    key = row.get("key")
    secrets = distinctive_words(question, key if isinstance(key, str) else truth)
    badge = '<b class="leak">leak</b> ' if _leaks(row, answer) else ""
    return f"<p>{badge}{marked(_cut(answer), secrets) or '<i>(empty)</i>'}</p>"


def _plain_answer(row: Mapping[str, Any], answer: str) -> str:
    return f"<p>{text(_cut(answer)) or '<i>(empty)</i>'}</p>"


def marked(answer: str, secrets: Sequence[str]) -> str:
    """An answer as HTML with these words marked."""
    wanted, pieces = set(secrets), answer.split(" ")
    return " ".join(
        f"<mark>{text(piece)}</mark>" if wanted & set(words(piece)) else text(piece) for piece in pieces
    )


def _cut(value: str) -> str:
    return value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]} … ({len(value)} characters)"
