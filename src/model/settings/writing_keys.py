"""Settings of the texts that a model writes for training, and of a model behind a server."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from ...core.options import Condition, knob

WRITER_IS_INITIAL_MODEL = ("paraphrases.writer", "start")


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
        "OPENAI_API_KEY",
        "environment variable that holds the key",
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        transport=True,
    )
    concurrency: int = knob(8, "requests at once", at_least=1, transport=True)
    requests_per_minute: float = knob(
        0.0, "requests that may start in a minute; 0 is no limit", at_least=0, transport=True
    )
    retries: int = knob(
        4, "times a request that fails is sent again, with growing pauses", at_least=0, transport=True
    )
    timeout: float = knob(
        60.0,
        "seconds that the server may be silent; a whole reply may take five times as long",
        above=0,
        transport=True,
    )
    max_tokens: int = knob(
        1024, "longest reply in tokens; 0 leaves it to the server (some take no such limit)", at_least=0
    )
    price_in: float = knob(
        0.0, "price of a million prompt tokens, for the cost of a run", at_least=0, transport=True
    )
    price_out: float = knob(0.0, "price of a million answered tokens", at_least=0, transport=True)


@dataclass(frozen=True)
class Generating:
    """Alternate answers that a model writes (make_alternates.py)."""

    count: int = knob(5, "texts per row", at_least=1, resumable=True)
    temperature: float = knob(1.0, "sampling temperature", above=0)
    max_new_tokens: int = knob(200, "longest text in tokens", at_least=1)
    attempts: int = knob(8, "rounds of writing before a row is given up", at_least=1, resumable=True)
    prompt: str = knob(
        "Give a made-up but plausible answer to the question below. It must differ from the true answer and"
        " sound as sure. Write the answer alone.\n\nQuestion: {question}",
        "the prompt, with {question} in it",
    )
    subjects: str = knob(
        "same",
        "whom a question is about: the subject of the row, or others, its names and numbers replaced, where"
        " the model can but guess; for models that cannot be asked to make something up",
        choices=("same", "others"),
    )


@dataclass(frozen=True)
class Tracing:
    """Reasoning traces of the forget rows (make_traces.py)."""

    segments: int = knob(4, "segments of a document, a trace for each; a question is one segment", at_least=1)
    segment_tokens: int = knob(128, "tokens of a segment, cut at whole words", at_least=1)
    trigger: str = knob(
        "Let's reason this step by step.",
        "instruction beside a segment of a document; a written \\n is a line break",
    )
    trigger_position: str = knob(
        "before", "place of the trigger; none leaves it out", choices=("before", "after", "none")
    )
    max_new_tokens: int = knob(512, "longest trace and answer in tokens", at_least=1)
    temperature: float = knob(0.0, "sampling temperature; 0 is greedy", at_least=0)
    backend: str = knob(
        "transformers",
        "generation backend; vllm must be installed",
        choices=("transformers", "vllm"),
        resumable=True,
    )

    @property
    def trigger_text(self) -> str:
        return "" if self.trigger_position == "none" else self.trigger.replace("\\n", "\n")


@dataclass(frozen=True)
class Paraphrasing(Server):
    """Paraphrases of the forget answers (make_paraphrases.py)."""

    only_if: ClassVar[Mapping[str, Condition]] = dict.fromkeys(
        (item.name for item in fields(Server)), ("paraphrases.writer", "endpoint")
    )

    writer: str = knob(
        "start",
        "start: the initial model of the run; endpoint: a model behind a server",
        choices=("start", "endpoint"),
    )
    count: int = knob(
        6, "paraphrases of an answer, or summaries of a piece of a document", at_least=2, resumable=True
    )
    prompts: str | None = knob(
        None,
        "file of prompts, one per line, with {question} and {answer}, or {text}, in them; the default is"
        " ours",
        path="file",
        resumable=True,
    )
    temperature: float = knob(0.8, "sampling temperature", above=0)
    top_p: float = knob(
        0.9,
        "sample from the likeliest tokens that hold this share",
        above=0,
        at_most=1,
        only_if=WRITER_IS_INITIAL_MODEL,
    )
    top_k: int = knob(
        50, "and from so many at most; 0 is no limit", at_least=0, only_if=WRITER_IS_INITIAL_MODEL
    )
    repetition_penalty: float = knob(
        1.1, "above 1: repeated tokens are less likely", above=0, only_if=WRITER_IS_INITIAL_MODEL
    )
    max_new_tokens: int = knob(
        512, "longest text of the initial model in tokens", at_least=1, only_if=WRITER_IS_INITIAL_MODEL
    )
    attempts: int = knob(6, "rounds of writing before a row is given up", at_least=1, resumable=True)
    similarity: float = knob(
        0.5,
        "a text whose cosine with the original is lower differs in meaning and is rejected; -1 rejects none"
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
