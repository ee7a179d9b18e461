"""Who reads what a model wrote: the judge, the sentence embedder and the entailment model of a run."""

import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from ..core.embedding import Embedder
from ..core.encoding import Template, chat_template_of, chat_text, leading_ids, text_ids
from ..core.endpoint import Endpoint
from ..core.files import UserError, fingerprint
from ..core.generation import DecodingOptions, Generation, generate
from ..core.reply_cache import ReplyCache, Usage, well_formed
from ..metrics.spec import METRICS, Judges
from ..metrics.verdicts import TOXIC_RUBRIC_VERSION, EmbeddingJudge, LanguageModelJudge, RuleJudge
from .load.loading import (
    TokenBudget,
    autocast_context,
    check_context,
    from_hub_or_folder,
    load_model,
    load_pretrained,
    load_tokenizer,
    model_fingerprint,
    resolve_device,
    resolve_precision,
)
from .settings.run_settings import Settings
from .settings.writing_keys import Server

log = logging.getLogger(__name__)

LONGEST_VERDICT = 512
"""Tokens that a local judge may write where no limit is set; one that thinks before it speaks needs them."""
SHORTEST_VERDICT = 8
"""Tokens that it must have room for."""
QUESTIONS_AT_ONCE = 64
"""Verdicts of a local judge that are kept together."""
PAIRS_AT_ONCE = 32
TOXIC_LABELS = ("toxic", "toxicity")
"""Names of the label whose probability is a text's toxicity."""
LONGEST_TEXT = 512
"""Tokens that a toxicity classifier reads at once, at most."""
COSINES = ("semantic/forget_cosine", "semantic/retain_cosine")


def make_judges(settings: Settings) -> Judges:
    """The judges of a run. Models among them are loaded when something is first put to them."""
    plan = settings.judge
    embedder = Embedder(plan.embedder, resolve_device(settings.overall.device))
    judge = {
        "rule": RuleJudge,
        "lm": lambda: LanguageModelJudge(make_endpoint(plan, settings, "judge")),
        "local": lambda: LanguageModelJudge(LocalLanguageModel(settings)),
        "embedding": lambda: EmbeddingJudge(plan.embedder, embedder.similarity, plan.threshold),
    }[plan.kind]()
    toxicity, by = None, ""
    if name := settings.evaluate.toxicity_model:
        toxicity, by = ToxicityClassifier(name, embedder.device), name
    elif isinstance(judge, LanguageModelJudge):
        toxicity, by = judge.toxicity, f"{judge.name}, toxicity {TOXIC_RUBRIC_VERSION}"
    return Judges(
        judge,
        embedder.similarity,
        Entailment(plan.nli_model, embedder.device) if plan.nli_model else None,
        toxicity,
        by,
    )


def make_endpoint(
    plan: Server, settings: Settings, section: str, whole: bool = False, temperature: float = 0.0
) -> Endpoint:
    """The language model that a section of the settings names; `whole` takes no reply that was cut off."""
    assert plan.model, "exec.rules refuses a server without the name of a model"
    return Endpoint(
        plan.model,
        plan.base_url,
        plan.key_env,
        plan.concurrency,
        plan.retries,
        plan.timeout,
        settings.overall.cache,
        plan.requests_per_minute,
        section,
        plan.max_tokens,
        whole,
        temperature,
    )


def check_judges(settings: Settings, keys: Sequence[str]) -> None:
    """UserError when the metrics `keys` ask for a reader that is not to be had: before anything heavy is
    done. With judge.allow_unscored an unreachable server is only warned of."""
    plan, judged = settings.judge, settings.asks_judge(keys)
    if judged and plan.kind == "lm":
        try:
            make_endpoint(plan, settings, "judge").probe()
        except UserError as error:
            if not plan.allow_unscored:
                raise UserError(
                    f"{str(error).rstrip('?.')}. To go on without its verdicts: --allow-unscored"
                ) from None
            log.warning("%s; going on, its rows will be unscored (judge.allow_unscored)", error)
    if judged and plan.kind == "local":
        load_tokenizer(plan.model or "")
    if (judged and plan.kind == "embedding") or any(key in COSINES for key in keys):
        Embedder(plan.embedder).encode(["a text"])
    if plan.nli_model and any(key.endswith("_entailment") for key in keys):
        Entailment(plan.nli_model, "cpu").check()
    if settings.evaluate.toxicity_model and any(METRICS[key].family == "toxic" for key in keys):
        ToxicityClassifier(settings.evaluate.toxicity_model, "cpu").check()


def load_classifier(key: str, name: str, advice: str):
    """The text classifier that a key names. UserError, ending in `advice`, for a model of another kind."""
    try:
        config = from_hub_or_folder(AutoConfig.from_pretrained, name)
        kinds = config.architectures or []
        if kinds and not any("SequenceClassification" in kind for kind in kinds):
            # Its weights would be loaded without a classifier's head, and that would be reported as a loss.
            raise UserError(f"{name} is a {', '.join(kinds)}, not a text classifier; {advice}")
        return load_pretrained(AutoModelForSequenceClassification, name)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


class ToxicityClassifier:
    """A sequence classifier with a label for toxic text.

    A text has the probability of that label: the sigmoid of its own logit where the model has several
    labels at once or one, else the softmax over its classes. A text longer than the classifier reads has
    the largest of its parts.

    Raises:
        UserError: the model has no such label, when it is first needed.
    """

    def __init__(self, name: str, device: str):
        self.name, self.device = name, device

    def check(self) -> None:
        """UserError when the model cannot be loaded or has no label for toxic text."""
        _ = self.label, self.tokenizer

    @cached_property
    def model(self):
        advice = "choose a toxicity classifier, such as unitary/toxic-bert"
        return load_classifier("evaluate.toxicity_model", self.name, advice).to(self.device).eval()

    @cached_property
    def label(self) -> int:
        """The place of the toxic label."""
        labels = self.model.config.id2label
        found = [int(place) for place, label in labels.items() if str(label).lower() in TOXIC_LABELS]
        if not found:
            raise UserError(
                f"evaluate.toxicity_model: {self.name} labels {', '.join(map(str, labels.values()))}, and"
                f" none of them is {' or '.join(TOXIC_LABELS)}; choose a toxicity classifier, such as"
                " unitary/toxic-bert"
            )
        return found[0]

    @cached_property
    def tokenizer(self):
        return from_hub_or_folder(AutoTokenizer.from_pretrained, self.name)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[float]:
        """The probability that each text is toxic."""
        config = self.model.config
        longest = min(
            self.tokenizer.model_max_length,
            getattr(config, "max_position_embeddings", LONGEST_TEXT),
            LONGEST_TEXT,
        )
        several = config.problem_type == "multi_label_classification" or config.num_labels == 1
        scores = [0.0] * len(texts)
        for at in range(0, len(texts), PAIRS_AT_ONCE):
            inputs = self.tokenizer(
                list(texts[at : at + PAIRS_AT_ONCE]),
                truncation=True,
                max_length=longest,
                return_overflowing_tokens=True,
                padding=True,
                return_tensors="pt",
            )
            owners = inputs.pop("overflow_to_sample_mapping").tolist()
            logits = self.model(**inputs.to(self.device)).logits.float()
            found = (logits.sigmoid() if several else logits.softmax(-1))[:, self.label].tolist()
            for owner, score in zip(owners, found):
                scores[at + owner] = max(scores[at + owner], score)
        return scores


class LocalLanguageModel:
    """A language model of the disk or the hub that is asked questions here, greedily; its replies are kept as
    those of a server."""

    def __init__(self, settings: Settings):
        self.settings, self.usage = settings, Usage()
        self.name = settings.judge.model or ""
        self.budget = settings.judge.max_tokens or LONGEST_VERDICT

    @cached_property
    def model(self):
        overall = self.settings.overall
        device = resolve_device(overall.device)
        return load_model(self.name, resolve_precision(overall.precision, device), device).eval()

    @cached_property
    def tokenizer(self):
        return load_tokenizer(self.name)

    @cached_property
    def fingerprint(self) -> str:
        return model_fingerprint(self.model)

    def ask(self, system: str, prompts: Sequence[str], readable: Callable[[str], bool]) -> list[str | None]:
        place = fingerprint(self.fingerprint, self.precision, self.budget, system)
        known = ReplyCache(self.settings.overall.cache / "local" / f"{place}.jsonl")
        asked = [self._ids(system, prompt) for prompt in prompts]
        keys = [fingerprint(ids) for ids in asked]
        missing = {key: ids for key, ids in zip(keys, asked) if key not in known}
        self.usage.cached += len(prompts) - len(missing)
        longest = max(map(len, missing.values()), default=0)
        advice = "The judge reads whole answers; take one that can"
        check_context(self.name, TokenBudget(longest, SHORTEST_VERDICT, "judge.model", advice))
        unread, todo = [], list(missing.items())
        for at in range(0, len(todo), QUESTIONS_AT_ONCE):
            chunk = todo[at : at + QUESTIONS_AT_ONCE]
            for (key, ids), reply in zip(chunk, self._replies([ids for _, ids in chunk], longest)):
                self.usage.local(len(ids), reply.n_tokens)
                if readable(reply.text):
                    known.add(key, reply.text)
                else:
                    unread.append(" ".join(reply.text.split())[:200])
        self.usage.failed += len(unread)
        if unread:
            log.warning(
                "%s: %d of %d answers cannot be read (%s)", self.name, len(unread), len(prompts), unread[0]
            )
        return [known.get(key) for key in keys]

    @property
    def precision(self) -> str:
        return resolve_precision(self.settings.overall.precision, self.model.device.type)

    def _replies(self, asked: list[list[int]], longest: int) -> list[Generation]:
        """Replies within the budget, or what the longest prompt of all leaves of the context."""
        context = getattr(self.model.config, "max_position_embeddings", None) or longest + self.budget
        options = DecodingOptions(
            min(self.budget, context - longest),
            self.settings.evaluate.batch_tokens,
            Template(self.tokenizer).stop_ids,
        )
        with autocast_context(self.model.device, self.precision):
            return generate(self.model, self.tokenizer, asked, options)

    def _ids(self, system: str, prompt: str) -> list[int]:
        """Rubric and question as one turn, which every chat template knows; plain text for a model without
        one."""
        text = well_formed(f"{system}\n\n{prompt}")
        if chat_template_of(self.tokenizer) is None:
            return text_ids(self.tokenizer, f"{text}\n\nVerdict:", leading_ids(self.tokenizer))
        turns = [{"role": "user", "content": text}]
        chat = chat_text(self.tokenizer, turns, add_generation_prompt=True, enable_thinking=False)
        return text_ids(self.tokenizer, chat)


class Entailment:
    """A sequence classifier with labels for entailment, neutrality and contradiction. UserError when it has
    no entailment label."""

    def __init__(self, name: str, device: str):
        self.name, self.device = name, device

    def check(self) -> None:
        """UserError when the model cannot be loaded or labels no entailment."""
        _ = self.model

    @cached_property
    def model(self):
        advice = "choose a model for natural language inference"
        model = load_classifier("judge.nli_model", self.name, advice).to(self.device).eval()
        if "entailment" not in self._words(model).values():
            raise UserError(
                f"judge.nli_model: {self.name} labels {', '.join(model.config.id2label.values())}, and none"
                " of them says entailment; choose a model for natural language inference"
            )
        return model

    @cached_property
    def tokenizer(self):
        return from_hub_or_folder(AutoTokenizer.from_pretrained, self.name)

    @staticmethod
    def _words(model) -> dict[int, str]:
        """The number of each label in the words of `metrics.spec.Judges`."""
        word = lambda label: next(
            (w for w in ("entailment", "contradiction") if label.lower() == w), "neutral"
        )
        return {int(number): word(label) for number, label in model.config.id2label.items()}

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[str]:
        words, found = self._words(self.model), []
        for at in range(0, len(pairs), PAIRS_AT_ONCE):
            inputs = self.tokenizer(
                *map(list, zip(*pairs[at : at + PAIRS_AT_ONCE])),
                padding=True,
                truncation=True,
                return_tensors="pt",
            )
            numbers = self.model(**inputs.to(self.device)).logits.argmax(-1).tolist()
            found += [words[number] for number in numbers]
        return found
