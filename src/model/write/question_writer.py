"""Other questions of the same kind: a model goes on with a list of some, which any language model can."""

import random
import re
from collections import Counter
from collections.abc import Sequence

from ...core.encoding import Template, text_ids
from ...core.generation import DecodingOptions, generate
from ...core.words import words
from ..load.loading import autocast_context, resolve_precision
from ..run.progress import progress
from ..settings.run_settings import Settings
from .generation_rounds import text_seeds

SHOWN = 6
"""Most questions of a list; the model may add as many tokens as it has."""
LISTS_PER_QUESTION = 0.3
"""Lists for each question that is wanted: most are written more than once."""
LONGEST = 128
"""Most tokens that the model adds to a list."""
TEMPERATURE, TOP_P = 0.9, 0.95
LEAST_WORDS = 3


def similar_questions(
    settings: Settings, model, template: Template, asked: Sequence[str], wanted: int
) -> list[str]:
    """Questions like those asked, the ones that the model writes most often first.

    Args:
        settings: of the run; the questions depend on its seed.
        model: the model.
        template: its tokenizer.
        asked: the questions; none of them is among those found.
        wanted: about how many are to be found. A model that cannot write such a list finds fewer.
    """
    draw = random.Random(settings.overall.seed)
    count = max(1, round(LISTS_PER_QUESTION * wanted))
    longest = max(len(text_ids(template.tokenizer, _list([question]))) for question in asked)
    size = min(SHOWN, len(asked), max(1, settings.dataset.max_length // longest))
    shown = [draw.sample(list(asked), size) for _ in range(count)]
    found: Counter[str] = Counter()
    for text in _continuations(settings, model, template, [_list(some) for some in shown]):
        found.update(list(dict.fromkeys(_questions(text, asked))))  # in their order, which ties keep
    return [question for question, _ in found.most_common(wanted)]


def _list(questions: Sequence[str]) -> str:
    """A numbered list that ends with the number of a question to come."""
    lines = [f"{number}. {question}\n" for number, question in enumerate(questions, 1)]
    return "".join(lines) + f"{len(questions) + 1}."


def _continuations(settings: Settings, model, template: Template, lists: Sequence[str]) -> list[str]:
    prompts = [text_ids(template.tokenizer, text) for text in lists]
    rows = [{"id": f"list {number}"} for number in range(len(lists))]
    options = DecodingOptions(
        min(LONGEST, max(map(len, prompts))),
        settings.evaluate.batch_tokens,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        seeds=text_seeds(settings.overall.seed, rows, prompts, [0] * len(lists)),
    )
    precision = resolve_precision(settings.overall.precision, model.device.type)
    with (
        autocast_context(model.device, precision),
        progress("writing questions of the same kind", settings.overall.quiet, len(lists)) as advance,
    ):
        found = generate(model, template.tokenizer, prompts, options, lambda done: advance(len(done)))
    return [text.text for text in found]


def _questions(text: str, asked: Sequence[str]) -> list[str]:
    """The whole questions that a list goes on with: they begin and end like some of those asked, and are none
    of them."""
    # The last line may have been cut.
    lines = [re.sub(r"^\s*\d+\s*[.)]\s*", "", line).strip() for line in text.splitlines()]
    known = {" ".join(words(question)) for question in asked}
    # A question may be signs alone.
    begins, ends = (
        {" ".join(words(question)[:1]) for question in asked},
        {question.strip()[-1:] for question in asked},
    )
    longest = 2 * max(len(words(question)) for question in asked)
    return [
        line
        for line in lines
        if line
        and LEAST_WORDS <= len(said := words(line)) <= longest
        and " ".join(said) not in known
        and said[0] in begins
        and line[-1] in ends
    ]
