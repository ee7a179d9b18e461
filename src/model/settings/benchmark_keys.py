"""Settings of the benchmarks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...core.files import UserError
from ...core.options import Condition, knob
from ...core.registry import did_you_mean
from ..benchmarks.suites import AUTO, NONE, suite_names

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
class Benchmarks:
    """Benchmarks of lm-evaluation-harness (run_benchmarks.py, or before and after a run)."""

    only_if: ClassVar[Mapping[str, Condition]] = {
        "*": ("run.benchmarks", True),
        "suite": ("benchmarks.suite", bool),  # `none` has an effect: it leaves out the suite of the task
    }

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
        only_if=("benchmarks.backend", "server"),
    )
    key_env: str = knob(
        "OPENAI_API_KEY",
        "environment variable that holds the server's key",
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        only_if=("benchmarks.backend", "server"),
    )
    concurrency: int = knob(
        8, "requests to the server at once", at_least=1, only_if=("benchmarks.backend", "server")
    )
    plan: bool = knob(False, "print what would be run and what it costs, and load no model")

    @property
    def decoding(self) -> dict[str, Any]:
        """`gen_kwargs` as values."""
        return dict(_word(pair) for pair in (self.gen_kwargs or "").split(",") if pair)
