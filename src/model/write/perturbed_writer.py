"""Paraphrased and perturbed (wrong) answers to a user's own questions, for the truth ratio and forget
quality: written by the initial model or by one behind a server, and checked before they are kept."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.answers import refuses
from ...core.embedding import Embedder
from ...core.encoding import Template
from ...core.files import UserError, lock, write_jsonl
from ...core.project import DATA
from ...core.words import words
from ...dataset import ForgetSet, evaluation_rows, load_rows
from ...dataset.own_rows import questions
from ...dataset.perturbed import ADDED, PERTURBED, SETS, is_generated, perturbed_path
from ...metrics.verdicts import COMMON, DISTINCTIVE_SHARE, SENTENCE, distinctive_words
from ..load.loading import initial_tokenizer, resolve_device
from ..settings.run_settings import Settings
from ..training_data import choose_forget_rows
from .generation_rounds import Rounds
from .paraphrase_writer import (
    ParaphraseFilter,
    Writer,
    choose_writer,
    deciding_settings,
    instructions,
    read_prompts,
    trainable,
    turns_of,
)

WRONG_POOL = DATA / "perturbation_prompts.txt"
SHORTEST, LONGEST = 0.5, 2.0
"""Words of a text as a multiple of the true answer's."""
LABEL = re.compile(
    r"\W*(\w+ ){0,3}(answer|option|sentence|true|false|wrong)\W*(:|(would|could|might|should) be\b|is\b)",
    re.IGNORECASE,
)
"""What a weak writer puts before what it was asked for."""


@dataclass
class KeyFactFilter(ParaphraseFilter):
    """Keeps paraphrases that have the facts of the answer and no others."""

    def _fault(self, row: dict, text: str | None, cosine: float) -> str | None:
        if (fault := super()._fault(row, text, cosine)) or text is None:
            return fault
        facts = names_and_numbers(row["question"], row["answer"])
        distinctive = distinctive_words(row["question"], row["answer"])
        lost = facts - set(words(text)) if facts else _share(distinctive, text) < DISTINCTIVE_SHARE
        added = names_and_numbers(row["question"], text) - set(words(row["answer"]))
        return "lost fact" if lost else "added fact" if added else None

    def fault_of_form(self, row: dict, text: str) -> str | None:
        return super().fault_of_form(row, text) or _fault_beside(row["answer"], text)


@dataclass
class WrongAnswerFilter(ParaphraseFilter):
    """Keeps answers of about the same length that differ from the true one in a fact."""

    def _fault(self, row: dict, text: str | None, cosine: float) -> str | None:
        if text is None or (fault := self.fault_of_form(row, text)):
            return "unfinished" if text is None else fault
        said, true = words(text), words(row["answer"])
        if any(said == words(other) for other in [row.get("paraphrased_answer", ""), *self.kept[row["id"]]]):
            return "copy"
        facts = names_and_numbers(row["question"], row["answer"])
        facts = facts or set(distinctive_words(row["question"], row["answer"]))
        if (facts and facts <= set(said)) or not set(said) - set(true) - COMMON:
            return "same fact"
        return "meaning" if cosine < self.plan.similarity else None

    def fault_of_form(self, row: dict, text: str) -> str | None:
        return super().fault_of_form(row, text) or _fault_beside(row["answer"], text)


def _share(distinctive: Sequence[str], text: str) -> float:
    """The share of words that a text has."""
    said = set(words(text))
    return sum(word in said for word in distinctive) / len(distinctive) if distinctive else 1.0


def _fault_beside(answer: str, text: str) -> str | None:
    """Why a text cannot stand beside an answer: it is talk about it, the answer itself with more or fewer
    words around it, or of a length that gives it away."""
    if refuses(text):
        return "refusal"
    if LABEL.match(text) or text.count('"') % 2:
        return "prompt"
    said, true = f" {' '.join(words(text))} ", f" {' '.join(words(answer))} "
    if said in true or true in said:
        return "copy"
    return None if SHORTEST <= len(said.split()) / len(true.split()) <= LONGEST else "length"


def names_and_numbers(question: str, answer: str) -> set[str]:
    """The words of an answer that no other wording can do without: numbers, and what is capitalised within a
    sentence. Those of the question are left out. In scripts without capitals these are the numbers."""
    found = set()
    for sentence in SENTENCE.findall(answer):
        for place, word in enumerate(re.findall(r"\w\S*", sentence)):
            if any(map(str.isdigit, word)) or (place and word[0].isupper()):
                found.update(words(word))
    return found - set(words(question)) - COMMON


def write_perturbed(settings: Settings) -> tuple[list[str], str | None]:
    """Write a paraphrased answer and `paraphrases.count` wrong ones for every forget row and every retain row
    that is measured (`evaluate.rows`), into the files of `dataset.perturbed`. What they hold already is kept,
    so an interrupted run goes on.

    Returns:
        A line about each file, and a complaint about rows that cannot be measured yet, if there are some.

    Raises:
        UserError: when a file was written in another way or for other rows.
    """
    data, overall = settings.dataset, settings.overall
    assert data.folder, "the script's rules refuse a run without dataset.data_dir"
    tokenizer = initial_tokenizer(overall)
    template = Template(tokenizer, data.template, data.tags)
    every = load_rows(data.forget_dataset_name, data.folder, data.column_names)
    chosen, _ = choose_forget_rows(every, data.forget_ratio, data.dataset_seed)
    forget = ForgetSet(
        data.forget_dataset_name, data.folder, chosen, data.column_names, data.retain_dataset_name
    )
    sets = evaluation_rows(forget)
    known = {"forget": questions(every)}  # those that forget_ratio leaves out may be in the file
    messages, wanted = [], {}
    for name in (name for name in SETS if sets.get(name)):
        if reason := _needless(name, sets[name], data.folder):
            messages.append(reason)
        else:
            wanted[name] = sets[name][: settings.evaluate.rows or None]
    if not wanted:
        raise UserError("; ".join(messages) or f"{data.forget_dataset_name} has no row with a question")
    pools = Pools(read_prompts(settings.paraphrases.prompts), read_prompts(WRONG_POOL))
    asked = [row for rows in wanted.values() for row in rows]
    writer = choose_writer(settings, template, [*pools.right, *pools.wrong], asked)
    embedder = Embedder(settings.judge.embedder, resolve_device(overall.device))
    filters = Filters(settings, template, embedder, instructions([*pools.right, *pools.wrong]))
    unmeasured = []
    for name, rows in wanted.items():
        path = perturbed_path(data.folder, name)
        facts = {"forget": data.forget_dataset_name, **writer.facts, "settings": pools.facts(settings)}
        with lock(path.with_suffix(".lock"), "dataset.data_dir"):
            header = PERTURBED.header({"set": name, **facts})
            begun = PERTURBED.begun(path, header, known.get(name, sets[name]))
            lines = {line["id"]: line for line in begun}
            right, wrong = filters.of(lines, rows)
            file = PerturbedFile(path, header, known.get(name, sets[name]), lines, right, wrong)
            _fill(file, rows, writer, pools, settings)
        messages.append(file.summary(rows, name, settings.paraphrases.count))
        unmeasured += [row["id"] for row in rows if not file.is_complete(row)]
    if took := writer.usage():
        messages.append(", ".join(f"{name} {value}" for name, value in took.items() if name != "cached"))
    return messages, _complaint(unmeasured, len(asked), settings.paraphrases.attempts)


def _complaint(unmeasured: Sequence[str], count: int, attempts: int) -> str | None:
    if not unmeasured:
        return None
    return (
        f"{len(unmeasured)} of {count} rows lack a paraphrased or a perturbed answer after {attempts} rounds"
        f" (first {unmeasured[0]!r}); what there is is kept, and the same command goes on. More"
        " paraphrases.attempts or a stronger writer (paraphrases.writer endpoint) helps, or write them into"
        " the file by hand"
    )


def _needless(name: str, rows: Sequence[dict], folder: Path) -> str | None:
    """Why nothing is written for a row set; None when something is."""
    path = perturbed_path(folder, name)
    if all(set(ADDED) <= row.keys() for row in rows):
        return f"the {name} rows bring their own perturbed answers"
    if path.is_file() and not is_generated(path):
        return f"{path} was not written by make_perturbed.py and is left as it is"
    return None


@dataclass(frozen=True)
class Pools:
    """Prompts for paraphrases and for wrong answers."""

    right: Sequence[str]
    wrong: Sequence[str]

    def facts(self, settings: Settings) -> dict:
        """What decides what is written and kept."""
        return deciding_settings(settings, [*self.right, *self.wrong])


@dataclass(frozen=True)
class PerturbedFile:
    """One file of make_perturbed.py, while it is written: its texts are those that its filters kept."""

    path: Path
    header: dict
    known: Sequence[dict]
    """All rows that the file may be about."""
    lines: dict[str, dict]
    """What an earlier run wrote, by row id."""
    right: ParaphraseFilter
    wrong: ParaphraseFilter

    def save(self) -> None:
        """Write the whole file; rows that this run is not about keep their lines."""
        current = self.lines | {
            row["id"]: self._line(row) for row in self.known if row["id"] in self.right.kept
        }
        write_jsonl(
            self.path, [self.header, *(current[row["id"]] for row in self.known if row["id"] in current)]
        )

    def _line(self, row: dict) -> dict:
        right, wrong = self.right.kept[row["id"]], self.wrong.kept[row["id"]]
        filters = {"paraphrased_answer": self.right, "perturbed_answer": self.wrong}
        return {
            "id": row["id"],
            "source": PERTURBED.source(row),
            "question": row["question"],
            "answer": row["answer"],
            **({"paraphrased_answer": right[0]} if right else {}),
            **({"perturbed_answer": wrong} if wrong else {}),
            "rejected": {key: dict(keep.rejected.get(row["id"], {})) for key, keep in filters.items()},
        }

    def is_complete(self, row: dict) -> bool:
        """Can the row be measured?"""
        return bool(self.right.kept[row["id"]] and self.wrong.kept[row["id"]])

    def summary(self, rows: Sequence[dict], name: str, count: int) -> str:
        """How many texts the file holds for the rows of this run, and why others were rejected."""
        right, wrong = (sum(map(len, keep.kept.values())) for keep in (self.right, self.wrong))
        counts = [*self.right.rejected.values(), *self.wrong.rejected.values()]
        faults = sum(counts, Counter())
        reasons = ", ".join(f"{count} for {reason}" for reason, count in sorted(faults.items()))
        few = sum(len(self.wrong.kept[row["id"]]) < count for row in rows)
        return (
            f"wrote {self.path}: {right} paraphrased and {wrong} perturbed answers of {len(rows)} {name}"
            f" rows{f' ({few} rows have fewer than {count})' if few else ''}; rejected: {reasons or 'none'}"
        )


@dataclass(frozen=True)
class Filters:
    """Makes the filters of a file."""

    settings: Settings
    template: Template
    embedder: Embedder
    instructions: Sequence[str]
    """Pieces of the prompts."""

    def of(
        self, lines: Mapping[str, dict], rows: Sequence[dict]
    ) -> tuple[ParaphraseFilter, ParaphraseFilter]:
        """Filters of paraphrased and of wrong answers to `rows` that hold what `lines` (by row id) have."""
        earlier = {row["id"]: lines.get(row["id"], {}) for row in rows}
        kinds = {"paraphrased_answer": KeyFactFilter, "perturbed_answer": WrongAnswerFilter}
        right, wrong = (self._filter(kind, key, earlier) for key, kind in kinds.items())
        return right, wrong

    def _filter(
        self, kind: type[ParaphraseFilter], key: str, earlier: Mapping[str, dict]
    ) -> ParaphraseFilter:
        kept = {identity: _texts(line.get(key, [])) for identity, line in earlier.items()}
        rejected = {
            identity: Counter(line.get("rejected", {}).get(key, {})) for identity, line in earlier.items()
        }
        plan = self.settings.paraphrases
        return kind(plan, self.embedder, kept, self._fits, self.instructions, rejected)

    def _fits(self, row: dict, text: str) -> bool:
        return trainable(self.template, row, text, self.settings.dataset.max_length)


def _texts(found: str | list[str]) -> list[str]:
    return [found] if isinstance(found, str) else list(found)


def _fill(
    file: PerturbedFile, rows: Sequence[dict], writer: Writer, pools: Pools, settings: Settings
) -> None:
    """Write what the rows lack: a paraphrased answer first, which no wrong one may repeat."""
    plan, quiet = settings.paraphrases, settings.overall.quiet

    def write(keep: ParaphraseFilter, pool: Sequence[str], rows: Sequence[dict], rounds: Rounds) -> None:
        def ask(asked: list[dict], on_rows: Callable[[int], None]) -> list[str | None]:
            return writer.ask(pool, asked, turns_of(asked, keep), on_rows)

        rounds.fill(rows, keep.kept, ask, keep.take, file.save)

    write(file.right, pools.right, rows, Rounds(1, plan.attempts, "paraphrased answers", quiet))
    kept = file.right.kept
    rows = [{**row, "paraphrased_answer": kept[row["id"]][0] if kept[row["id"]] else ""} for row in rows]
    write(file.wrong, pools.wrong, rows, Rounds(plan.count, plan.attempts, "perturbed answers", quiet))
    file.save()
