"""Thinking aloud: the tags around it, the ways to ask for more or less of it, and the split into trace and
answer."""

from dataclasses import dataclass

MODES = {
    "direct": "the chat template without thinking",
    "thinking": "the model thinks, then answers",
    "zero": "ZeroThink: an empty thought is put into its mouth (R2MU's page; R-TOFU)",
    "less": (
        "LessThink: a short thought is put into its mouth that says it needs none (SafeChain,"
        " arXiv:2502.12025)"
    ),
    "more": "MoreThink: each time it stops thinking it is told to wait and goes on, for some rounds",
    "plain": "no chat template: a plain question and answer",
}
"""How a question is put to a reasoning model."""

THINKING_MODES = ("thinking", "more")
"""Modes in which the model itself has to close a thought."""

SHORT_TRACE = "Okay, the user asked this, I can answer it without thinking much."
WAIT = "Wait"


@dataclass(frozen=True)
class Tags:
    """What opens and closes a thought."""

    open: str = "<think>"
    close: str = "</think>"


TAGS = Tags()


@dataclass(frozen=True)
class TracedAnswer:
    """`answer` is None when the trace never closed: an unfinished thought is not an answer."""

    trace: str
    answer: str | None

    @property
    def closed(self) -> bool:
        return self.answer is not None


def split_trace(text: str, tags: Tags = TAGS, mode: str = "thinking") -> TracedAnswer:
    """Trace = between the tags, answer = after the last closing tag. Without a closing tag, or where another
    thought opens after it, all is trace, unless the model was asked in a mode that does not make it think:
    then a text that opens no thought is an answer."""
    trace, close, answer = text.rpartition(tags.close)
    if close and tags.open in answer:
        return TracedAnswer(text.strip().removeprefix(tags.open).strip(), None)
    if not close and mode not in THINKING_MODES and tags.open not in text:
        return TracedAnswer("", text.strip())
    if not close:
        return TracedAnswer(text.strip().removeprefix(tags.open).strip(), None)
    return TracedAnswer(trace.strip().removeprefix(tags.open).strip(), answer.strip())
