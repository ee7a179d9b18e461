"""Tasks of lm-evaluation-harness on a model in memory, or on one behind the harness's own backends.

The harness makes the requests and the scores. `InMemoryModel` takes the place of the harness's own class for
models in memory, which stops inside reasoning traces, loses special closing tags, cuts long prompts with no
more than a warning, and runs batches of one fixed size. Not among the families of `metrics`: it takes seconds
to import.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tqdm
from accelerate.utils import gather_object
from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models import huggingface
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import _import_func_in_yml, load_yaml
from lm_eval.utils import handle_non_serializable
from torch import Tensor

from ..core.batching import length_batches
from ..core.encoding import Template, chat_text, leading_ids, text_ids
from ..core.files import UserError
from ..core.generation import DecodingOptions, generate, generate_with_rounds
from ..core.hub_access import offline_reason
from ..core.likelihood import wide
from ..core.registry import did_you_mean
from ..core.sparse_logits import kept_logits
from ..core.thinking import THINKING_MODES
from .resampling import interval
from .spec import MAX_LOGITS

BUILT_IN = Path(evaluator.__file__).parent / "tasks"
SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")
"""Generation settings of a task that are used, beside its budget and stop texts."""
HFLM: Any = huggingface.HFLM
"""Its decorators hide its type from checkers."""
UNDIRECTED = ("refused",)
"""Metrics without a better direction: a refusal is good or bad by the prompt."""
UNUSED = ("alias", "name", "sample_len", "sample_count")
NARROW = 0.75
"""Share of the longest row's length that the rows of a scoring batch have at least."""
DEFAULT_BUDGET = 256
"""The harness's budget in tokens where a task sets none."""


# --- The model ----------------------------------------------------------------------------------------------


Row = tuple[tuple[int, ...], int]
"""Row of a scoring pass: ids, and the number of last positions whose logits score an ending."""


@dataclass(frozen=True)
class ModelOptions:
    """Prompts and batches of a model in memory.

    Args:
        template: How questions become tokens.
        mode: One of `core.thinking.MODES`.
        batch_tokens: Most padded tokens of a batch, prompt and generated text together.
        seed: Seed of sampling.
        rounds: Rounds of MoreThink, in mode more.
    """

    template: Template
    mode: str
    batch_tokens: int
    seed: int = 0
    rounds: int = 2

    @property
    def thinks(self) -> bool:
        return self.mode in THINKING_MODES


class InMemoryModel(HFLM):
    """A model in memory, for the harness.

    Batches are sorted by length and bounded in tokens. A generated text keeps its reasoning trace, tags
    included, and stop texts count only after it. A prompt that leaves no room for the answer is an error.
    """

    def __init__(self, model, tokenizer, options: ModelOptions, on_progress: Callable[[int, int], None]):
        with quiet_harness():
            super().__init__(pretrained=model, tokenizer=tokenizer)
        self.options, self.on_progress = options, on_progress
        self.start = leading_ids(tokenizer)
        self.templated: set[str] = set()
        """Prompts from a chat template, which brings its own BOS or needs none."""
        self.done, self.total = 0, 0
        self.failure = ""

    def share_work(self, accelerator) -> None:
        """Process this rank's part of the requests; every process of `accelerator` holds the model."""
        self.accelerator = accelerator
        self._rank, self._world_size = accelerator.process_index, accelerator.num_processes

    def work_alone(self) -> None:
        """Process all requests in every process, for tasks of fewer rows than processes."""
        self._rank, self._world_size = 0, 1

    def check_others(self) -> None:
        """Raise the error of a process that failed in all of them."""
        if self.world_size > 1:
            failures = [str(error) for error in gather_object([self.failure]) if error]
            if failures:
                raise UserError(failures[0])

    def _or_fail_together(self, answer: Callable[[], list], instead: list) -> list:
        """The result of `answer()`. A process that fails alone would leave the others waiting for its rows,
        so it continues with `instead` until `check_others`."""
        try:
            return answer()
        except Exception as error:
            if self.world_size == 1:
                raise
            self.failure = str(error) or type(error).__name__
            return instead

    def all_gather(self, tensor):
        """Each process's own number of requests, in place of those of all processes."""
        # The harness would repeat the last request until all processes have as many, and count the copies as
        # further samples of their row. Passes here never wait for another process, so no padding is needed.
        return tensor.reshape(1).repeat(self.world_size)

    def tok_encode(self, string, add_special_tokens=None, left_truncate_len=None, **_) -> list[int]:
        """Token ids of a text, after BOS unless it comes from a chat template."""
        # Some tokenizers append EOS to every text, which the harness would leave between prompt and
        # continuation, and some put BOS before a chat template that has none.
        bare = add_special_tokens is False or string in self.templated
        return text_ids(self.tokenizer, string, () if bare else self.start)

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        """Prompt of a chat: one question as everywhere in this project, few-shot examples as turns."""
        options = self.options
        if len(chat_history) == 1:
            text = options.template.prompt_text(chat_history[0]["content"], options.mode)
        else:
            text = chat_text(
                self.tokenizer,
                chat_history,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=options.thinks,
            )
        if options.template.chat and options.mode != "plain":
            self.templated.add(text)
        return text

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._or_fail_together(lambda: self._texts(requests), [""] * len(requests))

    def _texts(self, requests: list[Instance]) -> list[str]:
        self._begin(len(requests))
        by_settings: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_settings.setdefault(json.dumps(_args(request)[1], sort_keys=True), []).append(number)
        texts = [""] * len(requests)
        for settings, numbers in by_settings.items():
            prompts = [self.tok_encode(_args(requests[number])[0]) for number in numbers]
            for number, text in zip(numbers, self._continuations(prompts, json.loads(settings))):
                texts[number] = text
        return texts

    def _continuations(self, prompts: list[list[int]], settings: dict) -> list[str]:
        plan: Any = normalize_gen_kwargs(settings, DEFAULT_BUDGET)
        budget, sampled = plan["max_gen_toks"], plan["do_sample"]
        known = {"until", "max_gen_toks", "do_sample", *SAMPLING}
        if unknown := sorted(set(plan) - known):
            raise UserError(f"generation settings {', '.join(unknown)} are not supported in memory")
        longest = max(map(len, prompts))
        if longest + budget > self.max_length:
            room = self.max_length - longest
            remedy = (
                f"set benchmarks.gen_kwargs max_gen_toks={room} or less" if room > 0 else "it reads no more"
            )
            raise UserError(
                f"a prompt of {longest} tokens and max_gen_toks {budget} exceed the model's context of"
                f" {self.max_length}; {remedy}"
            )
        own = self.options
        options = DecodingOptions(
            max_new_tokens=budget,
            batch_tokens=own.batch_tokens,
            stop_ids=own.template.stop_ids,
            stop_texts=[text for text in plan["until"] if text],
            thinks=own.thinks,
            tags=own.template.tags,
            rounds=own.rounds,
            **({key: plan[key] for key in SAMPLING if key in plan} if sampled else {}),
        )
        torch.manual_seed(own.seed)
        run = generate_with_rounds if own.mode == "more" else generate
        advance = lambda done: self._advance(len(done))
        return [text.text for text in run(self.model, self.tokenizer, prompts, options, advance)]

    def _loglikelihood_tokens(self, requests, disable_tqdm: bool = False, override_bs=None):
        return self._or_fail_together(lambda: self._logps(requests), [(0.0, False)] * len(requests))

    @torch.inference_mode()
    def _logps(self, requests) -> list[tuple[float, bool]]:
        """Score each (texts, context, ending): log p of the ending, and whether it is the greedy
        continuation. Endings of one token after the same context share a row."""
        rows: dict[Row, list[int]] = {}
        for number, (_, context, ending) in enumerate(requests):
            # The last token scores nothing, so the row goes without it: endings of one token, as the letters
            # of multiple choice, then have equal rows.
            whole = (*context, *ending)
            if len(whole) > self.max_length + 1:
                raise UserError(
                    f"a prompt with its ending has {len(whole)} tokens, more than the model's context of"
                    f" {self.max_length}; the harness would cut its beginning. Fewer examples:"
                    " benchmarks.fewshot"
                )
            rows.setdefault((whole[:-1], len(ending)), []).append(number)
        found: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        self._begin(len(rows))
        for batch in self._scoring_batches(list(rows)):
            for key, scores in zip(batch, self._ending_logits(batch)):
                for number in rows[key]:
                    ending = torch.tensor(requests[number][2], device=scores.device)
                    logp = scores.gather(-1, ending[:, None]).sum().item()
                    found[number] = logp, bool((scores.argmax(-1) == ending).all())
            self._advance(len(batch))
        return found

    def _ending_logits(self, rows: list[Row]) -> list[Tensor]:
        """log p over the vocabulary at the last positions of each row, [tokens of its ending, V], in float32
        or wider."""
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        wanted = torch.zeros(ids.shape, dtype=torch.bool)
        for line, (row, count) in enumerate(rows):
            ids[line, : len(row)] = torch.tensor(row)
            wanted[line, len(row) - count : len(row)] = True
        on = self.model.device
        logits = kept_logits(self.model, ids.to(on), None, wanted.to(on))
        return list(wide(logits).log_softmax(-1).split([count for _, count in rows]))

    def _scoring_batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Batches of rows of like length, within `batch_tokens` and `MAX_LOGITS`."""
        # kept_logits computes a position's logits for all rows of a batch if one row needs it: at most as
        # many positions as the batch's width, or as the endings of all rows have.
        room = MAX_LOGITS // self.model.config.vocab_size
        for places in length_batches([len(ids) for ids, _ in rows], self.options.batch_tokens, NARROW):
            batch = [rows[place] for place in places]
            width, count = len(batch[0][0]), max(count for _, count in batch)
            most = max(1, room // width, math.isqrt(room // count))
            yield from (batch[at : at + most] for at in range(0, len(batch), most))

    def loglikelihood(self, requests, disable_tqdm: bool = False):
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        room = min(self.options.batch_tokens, MAX_LOGITS // self.model.config.vocab_size)
        self.batch_size_per_gpu = max(1, room // self.max_length)
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def _begin(self, total: int) -> None:
        self.done, self.total = 0, total
        self.on_progress(0, total)

    def _advance(self, rows: int) -> None:
        self.done += rows
        self.on_progress(self.done, self.total)


def _args(request: Instance) -> tuple[Any, ...]:
    """Prompt and generation settings of a request."""
    return request.args


@contextlib.contextmanager
def restoring_state(model, tokenizer) -> Iterator[None]:
    """Restore what the harness changes: random states, train or eval mode, the tokenizer's padding, the
    model's generation config and use of the key-value cache."""
    training = model.training
    own = {name: getattr(model.config, name, None) for name in ("use_cache", "pad_token_id")}
    generation, padding = model.generation_config, (tokenizer.padding_side, tokenizer.pad_token)
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)
            model.train(training)
            model.generation_config = generation
            for name, value in own.items():
                setattr(model.config, name, value)
            tokenizer.padding_side = padding[0]
            if tokenizer.pad_token != padding[1]:
                tokenizer.pad_token = padding[1]


# --- The tasks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """A figure of a task.

    Args:
        value: The figure.
        n: Number of rows.
        interval: 95 % bootstrap interval, where the figure is a mean over rows.
        better: up, down, or empty where neither is better.
        unscored: Number of rows without a value.
    """

    value: float | None
    n: int
    interval: tuple[float, float] | None = None
    better: str = "up"
    unscored: int = 0


@dataclass(frozen=True)
class TaskResult:
    """Results of a task.

    Args:
        scores: `<task>/metric[filter]` -> figure; of a group its own figures, or else those of its members.
        members: The same of the members of a group.
        samples: One dict per row and filter.
        config: The harness's configs of the tasks.
    """

    scores: dict[str, Score]
    members: dict[str, Score]
    samples: list[dict]
    config: dict[str, Any] = field(default_factory=dict)


class Tasks:
    """Index of tasks: this project's, and the harness's own as needed. Reading all 14,000 files of the
    harness takes 15 s, so only the folder that a task's name begins with is read, and all of them only if
    that fails.
    """

    def __init__(self, folder: Path, metadata: Mapping[str, Any]):
        self.folder, self.metadata = folder, dict(metadata)

    @functools.cache  # noqa: B019
    def _manager(self, folder: str | None, everything: bool = False) -> TaskManager:
        paths: list[str | Path] = [self.folder, *([BUILT_IN / folder] if folder else [])]
        return TaskManager(include_path=paths, include_defaults=everything, metadata=self.metadata)

    def manager_of(self, name: str, folder: str | None = None) -> TaskManager:
        """An index with the task `name`, looked up in `folder` of the harness first. UserError with near
        names for an unknown task."""
        for place in (None, *([folder] if folder else []), *_folders(name)):
            if name in self._manager(place).task_index:
                return self._manager(place)
        everything = self._manager(None, everything=True)
        if name not in everything.task_index:
            raise UserError(f"unknown task {name!r}{did_you_mean(name, everything.all_tasks)}")
        return everything

    def declared(self, name: str) -> dict[str, Any]:
        """Settings in the YAML file of a task, bases included; no rows are read."""
        path = self.manager_of(name).task_index[name].yaml_path
        return load_yaml(path, resolve_func=False) if path else {}

    def is_own(self, name: str) -> bool:
        return name in self._manager(None).task_index

    def load(self, name: str, folder: str | None = None, local_rows: str | None = None) -> dict:
        """Load a task or group with its rows.

        Args:
            name: Name of the task.
            folder: Folder of the harness to look in first.
            local_rows: Function of this project's task module that reads the rows of the harness's own tasks
                from a folder.

        Raises:
            UserError: Something cannot be read.
        """
        manager = self.manager_of(name, folder)
        changes: dict[str, Any] = {}
        if local_rows and not self.is_own(name):
            changes = {"custom_dataset": _import_func_in_yml(local_rows, self.folder)}
        offline = "" if folder or local_rows else offline_reason()
        try:
            with quiet_harness():
                return dict(manager.load(_changed(manager, name, changes) if changes else name))
        except Exception as error:  # data sets fail in as many ways as there are loaders
            reason = f" ({offline})" if offline and not isinstance(error, UserError) else ""
            raise UserError(f"{name}: {_first_line(error)}{reason}") from error


def _changed(manager: TaskManager, name: str, changes: Mapping[str, Any]) -> list:
    """A task, or all tasks of a group, with changes to their files."""
    # The manager's own `load` takes changes as a dict that it also hands to the members of groups inside a
    # group, where the list of members replaces a task's name.
    entry = manager.task_index[name]
    built = manager._factory.build(entry, overrides=dict(changes), registry=manager._index)
    return built if isinstance(built, list) else [built]


def _folders(name: str) -> list[str]:
    """Folders of the harness whose name is a prefix of the task's, the longest first."""
    parts = name.split("_")
    heads = ["_".join(parts[:n]) for n in range(len(parts), 0, -1)]
    heads += [head.rstrip("0123456789") for head in heads]
    return [head for head in dict.fromkeys(heads) if head and (BUILT_IN / head).is_dir()]


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text[:300]}"


@dataclass(frozen=True)
class TaskOptions:
    """Changes to a task's settings.

    Args:
        limit: Number of rows; 0 is all.
        chat: Whether prompts go through the chat template.
        fewshot: Number of examples; None is the task's own.
        repeats: Samples per row; 0 is the task's own.
        decoding: Generation settings that replace the task's own.
        seed: Seed of the choice of examples and of intervals.
        bootstrap: Resamples of an interval.
    """

    limit: int = 0
    chat: bool = False
    fewshot: int | None = None
    repeats: int = 0
    decoding: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    bootstrap: int = 1000


def generates(loaded: dict) -> bool:
    """Whether a task, or a member of a group, generates text."""
    return any(task.OUTPUT_TYPE == "generate_until" for task in loaded["tasks"].values())


@dataclass(frozen=True)
class Costs:
    """Size of a task: rows, samples or continuations of each row, budget of a sample in tokens (0 where none
    is generated), and the prompts of some rows."""

    rows: int
    samples: int
    new_tokens: int
    prompts: list[str]


def costs_of(loaded: dict, limit: int, repeats: int, decoding: Mapping[str, Any]) -> Costs:
    """Size of a task, without a model. Of a group the widest member counts."""
    tasks = list(loaded["tasks"].values())
    rows = sum(min(len(task.eval_docs), limit or len(task.eval_docs)) for task in tasks)
    prompts = [str(task.doc_to_text(doc)) for task in tasks for doc in itertools.islice(task.eval_docs, 50)]
    if generates(loaded):
        budgets = [
            {**(task.config.generation_kwargs or {}), **decoding}.get("max_gen_toks", DEFAULT_BUDGET)
            for task in tasks
        ]
        samples = max(repeats or task.config.repeats or 1 for task in tasks)
        return Costs(rows, samples, max(budgets), prompts)
    options = [
        len(task.doc_to_choice(task.eval_docs[0])) if task.OUTPUT_TYPE == "multiple_choice" else 1
        for task in tasks
    ]
    return Costs(rows, max(options), 0, prompts)


def yaml_files(loaded: dict) -> list[Path]:
    """The YAML files of a task and of its members."""
    sources = {(task.config.metadata or {}).get("config_source", "") for task in loaded["tasks"].values()}
    return sorted(Path(source) for source in sources if Path(source).is_file())


def row_hashes(loaded: dict, limit: int = 0) -> list[str]:
    """Hash of the rows of each member of a task, few-shot examples included."""
    found = []
    for name, task in sorted(loaded["tasks"].items()):
        digest = hashlib.sha256(name.encode())
        shots = task.fewshot_docs() if task.get_config("num_fewshot") else []
        for doc in itertools.chain(itertools.islice(task.eval_docs, limit or None), shots or []):
            digest.update(json.dumps(doc, sort_keys=True, default=str).encode())
        found.append(digest.hexdigest()[:16])
    return found


def run_task(lm: Any, loaded: dict, name: str, options: TaskOptions) -> TaskResult | None:
    """Run a loaded task; None on all but the first of several processes."""
    with quiet_harness():
        for task in loaded["tasks"].values():
            _configure(task, options)
        # The harness gives each process every n-th row; a process without any would not take part.
        few = min(len(task.eval_docs) for task in loaded["tasks"].values())
        if min(few, options.limit or few) < lm.world_size:
            lm.work_alone()
        results = evaluator.evaluate(
            lm,
            loaded,
            limit=options.limit or None,
            bootstrap_iters=0,
            apply_chat_template=options.chat,
            fewshot_as_multiturn=options.chat,
        )
    if lm.world_size > 1:
        lm.check_others()
    if results is None:
        return None
    plain = json.loads(json.dumps(results, default=handle_non_serializable))
    return _read_results(plain, name, options)


def _configure(task, options: TaskOptions) -> None:
    own = task.get_config("num_fewshot")
    # 0 in a task's file is deliberate: its prompt has no place for examples.
    if own is None or (options.fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=options.fewshot or 0)
    shots = task.get_config("num_fewshot")
    if shots and len(list(task.fewshot_docs())) < shots:
        raise UserError(
            f"{task.task_name} puts {shots} examples in front of a question, but its data has no rows to take"
            " them from; benchmarks.fewshot 0 asks without"
        )
    task.set_fewshot_seed(seed=options.seed)
    if task.OUTPUT_TYPE == "generate_until":
        if options.decoding:
            task.set_config(key="generation_kwargs", value=dict(options.decoding), update=True)
        if options.repeats:
            task.set_config(key="repeats", value=options.repeats)
        if task.config.repeats > 1 and not task.config.generation_kwargs.get("do_sample"):
            raise UserError(
                f"{task.task_name} writes greedily, so its {task.config.repeats} samples of a row would all"
                " be the same; set benchmarks.gen_kwargs temperature=0.6,top_p=0.95"
            )


def _read_results(results: dict, name: str, options: TaskOptions) -> TaskResult:
    # Several processes give their rows one after the other.
    samples = {task: sorted(rows, key=itemgetter("doc_id")) for task, rows in results["samples"].items()}
    members: dict[str, Score] = {}
    for task, figures in results["results"].items():
        if task in samples:
            better = results["higher_is_better"].get(task, {})
            members |= {
                f"{task}/{key}": score
                for key, score in _scores(figures, samples[task], better, options).items()
            }
    groups = results.get("groups", {})
    scores = {key: score for key, score in members.items() if key.startswith(f"{name}/")} or members
    if name in groups:
        pooled = [row for table in samples.values() for row in table]
        better = results["higher_is_better"].get(name, {})
        found = _scores(groups[name], pooled, better, options)
        scores = {f"{name}/{key}": score for key, score in found.items()} or scores
    rows = [{"task": task, **row} for task, table in samples.items() for row in table]
    return TaskResult(scores, members if scores != members else {}, rows, results["configs"])


def _scores(figures: dict, samples: list[dict], better: dict, options: TaskOptions) -> dict[str, Score]:
    """`metric[filter]` -> figure, with the interval over rows where the figure is a mean over them."""
    scores = {}
    for key, value in figures.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric in UNUSED or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        rows = [row.get(metric) for row in samples if row["filter"] == chosen]
        good = "up" if better.get(metric, True) else "down"
        if metric in UNDIRECTED:
            good = ""
        scores[f"{metric}[{chosen}]"] = _score(float(value), rows, good, options)
    return scores


def _score(value: float, rows: list, good: str, options: TaskOptions) -> Score:
    # Without an interval where the figure is not the mean of its rows (perplexity, F1 over a corpus).
    numbers = [float(row) for row in rows if isinstance(row, int | float)]
    if len(numbers) < len(rows) or not rows or abs(sum(numbers) / len(numbers) - value) > 1e-9:
        return Score(value, len(rows), None, good)
    around = interval(np.array(numbers), options.bootstrap, options.seed)
    return Score(value, len(rows), around, good)


def add_column(
    result: TaskResult,
    rows: Sequence[dict],
    column: str,
    values: Sequence[float | None],
    options: TaskOptions,
) -> TaskResult:
    """The result with a further figure and column: a value per row, None where it is unknown."""
    for row, value in zip(rows, values):
        row[column] = value
    known = np.array([value for value in values if value is not None])
    mean = float(known.mean()) if len(known) else None
    around = interval(known, options.bootstrap, options.seed) if len(known) else None
    score = Score(mean, len(known), around, "down", len(values) - len(known))
    head = next(iter(result.scores)).partition("/")[0]
    return replace(result, scores={**result.scores, f"{head}/{column}[{rows[0]['filter']}]": score})


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """Silence the harness: its warnings about deliberate settings, its bars, and its reports of failed
    requests, which show the key of a server."""
    logger, own = logging.getLogger("lm_eval"), tqdm.tqdm.__init__
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    tqdm.tqdm.__init__ = functools.partialmethod(own, disable=True)  # type: ignore[method-assign]
    try:
        yield
    finally:
        tqdm.tqdm.__init__ = own  # type: ignore[method-assign]
        logger.setLevel(level)
