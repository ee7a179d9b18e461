"""Reasoning traces: tags, prompt modes with more or less thinking, and the split of a text into trace and
answer."""

from dataclasses import dataclass

MODES = {
    "direct": "the chat template without thinking",
    "thinking": "the model thinks, then answers",
    "zero": "ZeroThink: the prompt ends with an empty trace (R2MU's page; R-TOFU)",
    "less": (
        "LessThink: the prompt ends with a short trace stating that no thinking is needed (SafeChain,"
        " arXiv:2502.12025)"
    ),
    "more": 'MoreThink: each time the trace ends, "Wait" is appended and it resumes, for some rounds',
    "plain": "no chat template: a plain question and answer",
}
"""Prompt modes of a reasoning model -> description."""

THINKING_MODES = ("thinking", "more")
"""Modes in which the model itself has to close the trace."""

# After LessThink and MoreThink of SafeChain (arXiv:2502.12025).
SHORT_TRACE = "Okay, the user asked this, I can answer it without thinking much."
WAIT = "Wait"


@dataclass(frozen=True)
class Tags:
    """Opening and closing tag of a reasoning trace."""

    open: str = "<think>"
    close: str = "</think>"


TAGS = Tags()


@dataclass(frozen=True)
class TracedAnswer:
    """Trace and answer of a generated text. `answer` is None where the trace never closes: an unfinished
    trace is not an answer."""

    trace: str
    answer: str | None

    @property
    def closed(self) -> bool:
        return self.answer is not None


def split_trace(text: str, tags: Tags = TAGS, mode: str = "thinking") -> TracedAnswer:
    """Split a generated text at its last closing tag.

    Args:
        text: Generated text. Its opening tag may be missing, where the prompt ended with it.
        tags: Opening and closing tag.
        mode: Prompt mode of the text, one of `MODES`.

    Returns:
        Trace and answer. Without a closing tag, or with another opening tag after it, all is trace; except in
        modes that do not make the model think, where a text without tags is an answer.
    """
    trace, close, answer = text.rpartition(tags.close)
    if close and tags.open in answer:
        return TracedAnswer(text.strip().removeprefix(tags.open).strip(), None)
    if not close and mode not in THINKING_MODES and tags.open not in text:
        return TracedAnswer("", text.strip())
    if not close:
        return TracedAnswer(text.strip().removeprefix(tags.open).strip(), None)
    return TracedAnswer(trace.strip().removeprefix(tags.open).strip(), answer.strip())
