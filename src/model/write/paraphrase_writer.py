"""What is to be forgotten, in other words, for GAO: written by the initial model or by one behind a server,
and read before it is kept."""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from ...core.embedding import Embedder
from ...core.encoding import Template
from ...core.endpoint import Endpoint
from ...core.files import UserError, fingerprint, lock, read_jsonl, read_text, write_jsonl
from ...core.generation import DecodingOptions, generate
from ...core.project import DATA
from ...core.thinking import split_trace
from ...core.words import words
from ...dataset import load_rows
from ...dataset.paraphrases import PARAPHRASES
from ...metrics.rouge import rougeL
from ..judges import make_endpoint
from ..load.loading import (
    TokenBudget,
    autocast_context,
    check_context,
    initial_tokenizer,
    load_initial,
    model_fingerprint,
    resolve_device,
    resolve_precision,
)
from ..settings.run_settings import Settings, deciding
from ..settings.writing_keys import WRITER_IS_INITIAL_MODEL, Paraphrasing, Server
from ..training_data import choose_forget_rows, reworded, units
from .generation_rounds import Rounds, text_seeds, turns

POOL = DATA / "paraphrase_prompts.txt"
ROLE = "You rewrite texts exactly as you are instructed, and reply with the rewritten text alone."
"""What a model behind a server is given as its role."""
TELLING = 5
"""Words of an instruction in a row that show it is said again."""

Ask = Callable[[Sequence[str], list[dict], list[int], Callable[[int], None]], list[str | None]]
"""A text for each row, by a pool of prompts and given how many were tried for it before; None where none came
to its end. The last argument is called with the rows that are done."""


def read_prompts(path: Path | str | None) -> list[str]:
    """One prompt per line, a written \\n for a line break. UserError for one that shows neither {answer} nor
    {text}."""
    lines = [
        line.strip().replace("\\n", "\n")
        for line in read_text(Path(path).expanduser() if path else POOL).splitlines()
    ]
    prompts = [line for line in lines if line]
    blind = [prompt for prompt in prompts if ("{answer}" in prompt) == ("{text}" in prompt)]
    if not prompts or blind:
        raise UserError(
            f"paraphrases.prompts: {path} "
            + (
                f"has a prompt that shows not exactly one of {{answer}} and {{text}}: {blind[0][:80]!r}"
                if blind
                else "holds no prompt (one per line)"
            )
        )
    return prompts


@dataclass
class ParaphraseFilter:
    """Keeps texts that say the same in other words, and counts why others were not kept."""

    plan: Paraphrasing
    embedder: Embedder
    kept: dict[str, list[str]]
    trainable: Callable[[dict, str], bool] = lambda row, text: True
    instructions: Sequence[str] = ()
    """Pieces of the prompts that no paraphrase has in it."""
    rejected: dict[str, Counter] = field(default_factory=dict)

    def take(self, rows: Sequence[dict], texts: Sequence[str | None]) -> None:
        """Keep of the texts, one for each of `rows`, those that are good."""
        cosines = self._cosines(rows, texts)
        for row, text, cosine in zip(rows, texts, cosines):
            reason = self._fault(row, text, cosine)
            if reason:
                self.rejected.setdefault(row["id"], Counter())[reason] += 1
            elif text:
                self.kept[row["id"]].append(text.strip())

    def _cosines(self, rows: Sequence[dict], texts: Sequence[str | None]) -> list[float]:
        if self.plan.similarity == -1:
            return [1.0] * len(texts)
        return self.embedder.similarity([text or "" for text in texts], [original(row) for row in rows])

    def _fault(self, row: dict, text: str | None, cosine: float) -> str | None:
        """Why a text is not a paraphrase of a row; None when it is one."""
        if text is None or (fault := self.fault_of_form(row, text)):
            return "unfinished" if text is None else fault
        others = [original(row), *self.kept[row["id"]]]
        if any(
            _words(text) == _words(other) or rougeL(other, text).fmeasure > self.plan.overlap
            for other in others
        ):
            return "copy"
        return "meaning" if cosine < self.plan.similarity else None

    def fault_of_form(self, row: dict, text: str) -> str | None:
        """Why a text is not an answer at all; None when it is one."""
        said = _words(text)
        if not said:
            return "empty"
        if not self.trainable(row, text):
            return "length"
        asked = _words(row.get("question") or row.get("prompt") or "")
        if any(piece and f" {piece} " in f" {said} " for piece in (asked, *self.instructions)):
            return "prompt"
        return None


def trainable(template: Template, row: dict, text: str, max_length: int) -> bool:
    """Has a text some token to be trained on, and no more than fit?"""
    try:
        return bool(template.encode(reworded(row, 0, text), max_length))
    except UserError:
        return False


def original(row: dict) -> str:
    """What is said in other words."""
    return row.get("text") or row["answer"]


def _words(text: str) -> str:
    return " ".join(words(text))


def write_paraphrases(settings: Settings) -> tuple[Path, dict]:
    """Write `paraphrases.count` paraphrases for every forget answer (or piece of a document); the file, and
    what a server took. What it holds already is kept, so an interrupted run goes on. UserError when the file
    was written in another way or for other rows, and at the end when a row got too few; what was written is
    kept."""
    plan, data, overall = settings.paraphrases, settings.dataset, settings.overall
    path = settings.dataset.paraphrases_file
    if path.is_dir():
        raise UserError(f"dataset.paraphrases: {path} is a folder; name a file")
    tokenizer = initial_tokenizer(overall)
    template = Template(tokenizer, data.template, data.tags)
    every = load_rows(data.forget_dataset_name, data.folder, data.column_names)
    chosen, _ = choose_forget_rows(every, data.forget_ratio, data.dataset_seed)
    all_units, rows = (
        [unit for row in some for unit in units(row, template, data.max_length, data.long_text)]
        for some in (every, chosen)
    )
    prompts = read_prompts(plan.prompts)
    for row in rows:
        choices(prompts, row)
    with lock(path.with_suffix(".lock"), "dataset.paraphrases"):
        writer = choose_writer(settings, template, prompts, rows)
        facts = writer.facts | {"settings": deciding_settings(settings, prompts)}
        header = PARAPHRASES.header({"forget": data.forget_dataset_name, **facts})
        lines = {line["id"]: line for line in PARAPHRASES.begun(path, header, all_units)}
        keep = ParaphraseFilter(
            plan,
            Embedder(settings.judge.embedder, resolve_device(overall.device)),
            {row["id"]: list(lines.get(row["id"], {}).get("paraphrases", ())) for row in rows},
            lambda row, text: trainable(template, row, text, data.max_length),
            instructions(prompts),
            {row["id"]: Counter(lines.get(row["id"], {}).get("rejected", {})) for row in rows},
        )

        def save() -> None:
            # Rows that dataset.forget_ratio leaves out keep what an earlier run wrote for them.
            current = lines | {row["id"]: _line(row, keep) for row in rows}
            write_jsonl(path, [header, *(current[u["id"]] for u in all_units if u["id"] in current)])

        def ask(asked: list[dict], on_rows: Callable[[int], None]) -> list[str | None]:
            return writer.ask(prompts, asked, turns_of(asked, keep), on_rows)

        rounds = Rounds(plan.count, plan.attempts, "paraphrasing", overall.quiet)
        poor = rounds.fill(rows, keep.kept, ask, keep.take, save)
        save()
        usage = writer.usage()
    if poor:
        raise UserError(_too_few(path, poor, keep, settings))
    return path, usage


def summary(path: Path, usage: dict) -> str:
    """How many paraphrases a file holds, why others were rejected, and what a server took."""
    lines = read_jsonl(path)[1:]
    faults = sum((Counter(line.get("rejected", {})) for line in lines), Counter())
    counts = ", ".join(f"{count} for {reason}" for reason, count in sorted(faults.items())) or "none"
    spent = {name: value for name, value in usage.items() if name not in ("cached", "unsupported")}
    took = "; " + ", ".join(f"{name} {value}" for name, value in spent.items()) if usage else ""
    if usage.get("unsupported"):
        took += f"; not accepted by the server: {', '.join(usage['unsupported'])}"
    return (
        f"{sum(len(line['paraphrases']) for line in lines)} paraphrases of {len(lines)} texts; rejected:"
        f" {counts}{took}"
    )


def _too_few(path: Path, poor: list[str], keep: ParaphraseFilter, settings: Settings) -> str:
    faults = sum(keep.rejected.values(), Counter())
    why = ", ".join(f"{reason} {count}" for reason, count in faults.most_common())
    return (
        f"{len(poor)} of {len(keep.kept)} texts have fewer than {settings.paraphrases.count} paraphrases"
        f" after {settings.paraphrases.attempts} rounds (first {poor[0]!r}; rejected: {why or 'none'});"
        f" {path} keeps what there is and can be used. The same command goes on; a higher"
        " paraphrases.temperature or max_new_tokens, a lower paraphrases.similarity, or a stronger writer"
        " helps"
    )


def deciding_settings(settings: Settings, prompts: list[str]) -> dict:
    """The settings that decide what is written and kept."""
    data, plan = settings.dataset, settings.paraphrases
    # The writer's own facts name the server's model; of its other keys none decides a text.
    idle = {item.name for item in fields(Server)}
    if plan.writer == "endpoint":
        idle |= {i.name for i in fields(plan) if i.metadata["knob"].only_if == WRITER_IS_INITIAL_MODEL}
    facts = {key: value for key, value in deciding(plan).items() if key not in idle}
    return facts | {
        "prompts": fingerprint(prompts),
        "embedder": settings.judge.embedder,
        "template": data.template,
        "max_length": data.max_length,
        "long_text": data.long_text,
    }


def _line(row: dict, keep: ParaphraseFilter) -> dict:
    asked = {"question": row["question"]} if "question" in row else {}
    return {
        "id": row["id"],
        "source": PARAPHRASES.source(row),
        **asked,
        "paraphrases": keep.kept[row["id"]],
        "rejected": dict(keep.rejected.get(row["id"], {})),
    }


def choices(prompts: Sequence[str], row: dict) -> list[str]:
    """The prompts of the pool that fit a row, shown it; UserError when there is none."""
    key = "{text}" if "text" in row else "{answer}"
    fitting = [prompt for prompt in prompts if key in prompt]
    if not fitting:
        raise UserError(f"paraphrases.prompts: no prompt has {key} in it, and row {row['id']!r} needs one")
    shown = {
        "{question}": row.get("question") or row.get("prompt", ""),
        "{answer}": row.get("answer", ""),
        "{text}": row.get("text", ""),
    }
    return [
        re.sub("|".join(map(re.escape, shown)), lambda found: shown[found[0]], prompt) for prompt in fitting
    ]


def turns_of(rows: Sequence[dict], keep: ParaphraseFilter) -> list[int]:
    """For each of `rows` how many texts were tried for it before, by earlier runs too; a row may stand there
    several times."""
    tried = {
        identity: len(texts) + sum(keep.rejected.get(identity, Counter()).values())
        for identity, texts in keep.kept.items()
    }
    return turns(rows, tried)


def _put(prompts: Sequence[str], rows: Sequence[dict], turns: Sequence[int]) -> list[str]:
    """A prompt for each of `rows`: turn by turn a row meets one after the other, in an order of its own."""
    put = []
    for row, turn in zip(rows, turns):
        fitting = choices(prompts, row)
        random.Random(row["id"]).shuffle(fitting)
        put.append(fitting[turn % len(fitting)])
    return put


def instructions(prompts: Sequence[str]) -> list[str]:
    """What the prompts say themselves, in pieces of a few words or more."""
    pieces = [_words(piece) for prompt in prompts for piece in re.split(r"\{\w+\}|[.\n]", prompt)]
    return sorted({piece for piece in pieces if len(piece.split()) >= TELLING})


@dataclass(frozen=True)
class Writer:
    """Who writes: how it is asked, facts about it for the header of a file, and what it took so far."""

    ask: Ask
    facts: dict
    usage: Callable[[], dict]


def choose_writer(
    settings: Settings, template: Template, prompts: Sequence[str], rows: Sequence[dict]
) -> Writer:
    """The writer that `paraphrases.writer` names. UserError when `prompts` about `rows` are too long for
    it."""
    if settings.paraphrases.writer == "endpoint":
        return _endpoint(settings)
    return _initial_model(settings, template, prompts, rows)


def _endpoint(settings: Settings) -> Writer:
    """A server, which is tried before the first request."""
    plan = settings.paraphrases
    endpoint: Endpoint = make_endpoint(
        plan, settings, "paraphrases", whole=True, temperature=plan.temperature
    )

    def ask(prompts: Sequence[str], rows: list[dict], turns: list[int], on_rows) -> list[str | None]:
        if not endpoint.usage.requests:
            endpoint.probe()
        replies = endpoint.ask(ROLE, _put(prompts, rows, turns), turns=turns)
        if not any(replies):
            raise UserError(
                f"paraphrases.base_url: {plan.base_url or 'OpenAI'} gave no answer to {len(rows)} requests in"
                " a row; what was written is kept, and the same command goes on when the server answers"
                " again"
            )
        on_rows(len(rows))
        return [None if reply is None else _answer(reply, settings) for reply in replies]

    return Writer(
        ask,
        {"writer": "endpoint", "model": plan.model},
        lambda: endpoint.usage.summary(plan.price_in, plan.price_out),
    )


def _initial_model(
    settings: Settings, template: Template, prompts: Sequence[str], rows: Sequence[dict]
) -> Writer:
    """The initial model of the run, which takes nothing but time."""
    plan, overall = settings.paraphrases, settings.overall
    longest = max(len(template.prompt_ids(prompt)) for row in rows for prompt in choices(prompts, row))
    budget = TokenBudget(
        longest,
        plan.max_new_tokens,
        "paraphrases.max_new_tokens",
        "A shorter dataset.max_length makes room in documents",
    )
    check_context(overall.model_name, budget)
    device = resolve_device(overall.device)
    precision = resolve_precision(overall.precision, device)
    model = load_initial(overall)

    def ask(prompts: Sequence[str], asked: list[dict], turns: list[int], on_rows) -> list[str | None]:
        put = [template.prompt_ids(prompt) for prompt in _put(prompts, asked, turns)]
        options = DecodingOptions(
            plan.max_new_tokens,
            settings.evaluate.batch_tokens,
            template.stop_ids,
            temperature=plan.temperature,
            top_p=plan.top_p,
            top_k=plan.top_k,
            repetition_penalty=plan.repetition_penalty,
            tags=settings.dataset.tags,
            seeds=text_seeds(overall.seed, asked, put, turns),
        )
        with autocast_context(device, precision):
            said = generate(model, template.tokenizer, put, options, lambda done: on_rows(len(done)))
        return [_answer(text.text, settings) if text.ended else None for text in said]

    facts = {"writer": "start", "model": model_fingerprint(model), "model_name": overall.model_name}
    return Writer(ask, {**facts, "template": template.fingerprint}, dict)


def _answer(text: str, settings: Settings) -> str | None:
    """What was said, without what was thought before and marks of quotation around it; None where the thought
    never closed."""
    said = split_trace(text, settings.dataset.tags, "direct").answer
    if said is None:
        return None
    quoted = re.fullmatch(r'["“](.*)["”]', said, re.DOTALL)
    return quoted[1].strip() if quoted and '"' not in quoted[1] else said
