"""The settings of every script out of config files and flags, strict, over fastargs.

    settings = settle_settings(StrictConfig(), ["a.json"], {"unlearn.lr": "1e-5"}, defaults={})

Files in the order given (`--config_file a.json`, repeatable), then flags (`--unlearn.lr 1e-5`); the last word
wins, null takes back what was said before. Unknown keys, wrong types and impossible combinations are all
reported at once, with where they come from, and end the program with status 2 before anything heavy is
imported or anything is written.
"""

import logging
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import fastargs

from ...core.files import UserError, read_json
from ...core.json_fields import shown
from ...core.options import Knob
from ...core.provenance import MEMORY, recall
from ...core.registry import near_path
from ...model.benchmarks.suites import AUTO, NONE
from ...model.settings import SECTIONS, START_ONLY, Server, Settings
from ...optim import FLATNESS, OPTIMIZERS
from ...unlearn import FORGET, REGULARIZERS, RETAIN, Method, parse_method
from ...unlearn.composition import is_method
from ...unlearn.gradients import COMBINERS
from ...unlearn.published.presets import PARITY
from .aliases import KEY_ALIASES, hint, other_names
from .checks import checker_for
from .rules import broken_rules, doubts

log = logging.getLogger(__name__)

IN_LOCALE = (
    f"text in the locale's encoding ({sys.getfilesystemencoding()}; set PYTHONUTF8=1, or rename the file)"
)
MODEL = ("overall", "model_name")
DATA = (("dataset", "forget_dataset_name"), ("dataset", "data_dir"))
COT_KEYS = tuple(
    f"dataset.{key}" for key in ("cot_dataset_name", "cot_data_dir", "cot_tokens", "cot_context")
)
SERVER_KEYS = (
    *(f"judge.{item.name}" for item in fields(Server) if item.name not in ("model", "max_tokens")),
    "judge.allow_unscored",
)
START_KEYS = tuple(f"paraphrases.{key}" for key in START_ONLY)
TRACE_KEYS = tuple(f"dataset.{key}" for key in ("trace_tokens", "trace_context", "trace_unclosed"))


@dataclass(frozen=True)
class Said:
    """A value as a source gave it, where (`a.json`, `command line`), and the place of that source in the
    order."""

    value: Any
    origin: str
    turn: int


class Complaints(UserError):
    """Everything that is wrong with the input, one line each."""


def component_families() -> dict[str, Mapping[str, type]]:
    """Beginning of the section's name -> every objective, regularizer, optimizer, flatness wrapper and
    combiner there is."""
    return {
        "unlearn.": FORGET | REGULARIZERS,
        "unlearn.retain.": RETAIN,
        "unlearn.optim.": OPTIMIZERS,
        "unlearn.flat.": FLATNESS,
        "unlearn.combine.": COMBINERS,
    }


def component_sections() -> dict[str, type]:
    """Section of every component there is."""
    return {
        f"{place}{name}": thing
        for place, things in component_families().items()
        for name, thing in things.items()
    }


def first_sentence(section: type) -> str:
    """What a section is about: the docstring up to its first full stop that ends a sentence."""
    paragraph = " ".join((section.__doc__ or "").strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.])(?<!al\.) (?=[A-Z])", paragraph)[0]


def knobs_of(section: type) -> Iterator[tuple[str, Any, Knob, Any]]:
    """Name, type, knob and default of every field of a settings or objective class."""
    kinds = typing.get_type_hints(section)
    for item in fields(section):
        yield item.name, kinds[item.name], item.metadata["knob"], item.default


class StrictConfig(fastargs.Config):
    """fastargs' declarations (sections, parameters, conditions) with our own reading and checking."""

    def __init__(self):
        super().__init__()
        self.said: dict[tuple[str, ...], Said] = {}
        self.whole_method: list[tuple[tuple[str, ...], Said]] = []
        self.turn = 0
        self.knobs: dict[tuple[str, ...], Knob] = {}
        self.against_parity: list[str] = []
        self.classes = SECTIONS | component_sections()
        for name, section in self.classes.items():
            self._declare(name, section)

    def _declare(self, name: str, section: type) -> None:
        doc = first_sentence(section)
        declared = fastargs.Section(name, doc, config_descriptor=self)
        if name not in SECTIONS:
            declared.enable_if(lambda config, name=name: name in config.active_sections())
        for key, kind, knob, default in knobs_of(section):
            path = (*declared.ns, key)
            if path in self.entries:
                raise ValueError(f"{'.'.join(path)} is declared twice")
            self.knobs[path] = knob
            declared.params(**{key: fastargs.Param(checker_for(kind, knob), knob.help, default)})

    # --- reading --------------------------------------------------------------------------------------------

    def take(self, tree: Any, origin: str) -> list[str]:
        """Take in a nested dict (dotted keys allowed) from one source; returns what is wrong with its shape.
        A `note` on the top level is for readers."""
        self.turn += 1
        if not isinstance(tree, dict):
            return [f"{origin}: expected an object of sections, got {_kind(tree)}"]
        return self._take_inner((), {key: value for key, value in tree.items() if key != "note"}, origin)

    def _take_inner(self, path: tuple[str, ...], tree: dict, origin: str) -> list[str]:
        return [
            complaint
            for key, value in tree.items()
            for complaint in self._take_node((*path, *key.split(".")), value, origin)
        ]

    def _take_node(self, path: tuple[str, ...], value: Any, origin: str) -> list[str]:
        path = tuple(KEY_ALIASES.get(".".join(path), ".".join(path)).split("."))
        if path in self.entries and not isinstance(value, dict):
            self._keep(path, Said(value, origin, self.turn))
        elif path in self._section_paths() or self.is_whole_method(path):
            if isinstance(value, dict):
                return self._take_inner(path, value, origin)
            return [f"{origin}: {'.'.join(path)} is a section, expected an object, got {_kind(value)}"]
        elif path in self.entries:
            return [f"{origin}: {'.'.join(path)} is a value, not a section"]
        elif self.is_whole_method(path[:2]) and self.home(path):
            self.whole_method.append((path, Said(value, origin, self.turn)))
        else:
            return self._unknown(".".join(path), value, origin)
        return []

    def _unknown(self, name: str, value: Any, origin: str) -> list[str]:
        """Complaints about a key, or about each key of a section, that is known to others and not to us."""
        known = [".".join(path) for path in (*self.entries, *self._section_paths())]
        names = other_names(value, name) if isinstance(value, dict) else []
        return [f"{origin}: unknown key {key!r}{hint(key, known)}" for key in names or [name]]

    def _keep(self, path: tuple[str, ...], said: Said) -> None:
        if said.value is None:
            self.said.pop(path, None)
        else:
            self.said[path] = said

    def _section_paths(self) -> set[tuple[str, ...]]:
        return {
            tuple(name.split(".")[:n])
            for name in (*self.classes, *KEY_ALIASES)
            for n in range(1, name.count(".") + 2)
            if name in self.classes or n <= name.count(".")
        }

    def is_whole_method(self, path: tuple[str, ...]) -> bool:
        """Is this a section spelt as a whole method, `unlearn.NPO+FT`, as the WAGLE family writes them?"""
        return len(path) == 2 and path[0] == "unlearn" and is_method(path[1])

    def home(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Where `unlearn.NPO+FT.<key>` leads: the first of its objectives that has such a key, or
        `unlearn.<key>`."""
        method = parse_method(path[1])
        sections = [
            *method.sections,
            *([f"unlearn.flat.{method.flatness}"] if method.flatness else []),
            "unlearn",
        ]
        homes = [(*section.split("."), *path[2:]) for section in sections]
        return next((home for home in homes if home in self.entries), None)

    def settle(self) -> list[str]:
        """Hand the keys of the whole-method section of the chosen method to their homes; those of others are
        remarked upon. Returns the conflicts: a home that the same source set to something else."""
        conflicts = []
        for path, said in self.whole_method if self._has_method() else ():
            home = self.home(path)
            assert home, "only keys that lead somewhere are kept as those of a whole method"
            direct = self.said.get(home)
            if parse_method(path[1]) != self.method() or (direct and direct.turn > said.turn):
                continue
            if direct and direct.turn == said.turn and direct.value != said.value:
                conflicts.append(
                    f"{said.origin}: {'.'.join(path)} is {said.value!r} but {'.'.join(home)} is"
                    f" {direct.value!r}; say one"
                )
            self._keep(home, said)
        return conflicts

    def apply_parity(self) -> None:
        """The switches of `unlearn.parity`, for what takes part and nobody said otherwise."""
        name = self._word("parity", PARITY)
        for section, preset in PARITY[name].items():
            for key, value in preset.items() if section in self.active_sections() | set(SECTIONS) else ():
                path = (*section.split("."), key)
                if path in self.said and self.value(path) != value:
                    self.against_parity.append(
                        f"unlearn.parity {name} would set {'.'.join(path)} to {value}, but"
                        f" {self.said[path].origin} says {self.said[path].value}, which counts"
                    )
                self.said.setdefault(path, Said(value, f"unlearn.parity {name}", 0))

    def _has_method(self) -> bool:
        try:
            return bool(self.method())
        except UserError:
            return False

    # --- checking -------------------------------------------------------------------------------------------

    def method(self) -> Method:
        """The method that the values so far name; UserError when there is no such method."""
        path = ("unlearn", "unlearn_method")
        return parse_method(self.said[path].value if path in self.said else self.entries[path].default)

    def _word(self, key: str, known: dict) -> str:
        """The value of `unlearn.<key>` if it is a known word in any case, else its default: what is wrong is
        said elsewhere."""
        path = ("unlearn", key)
        said = self.said[path].value if path in self.said else self.entries[path].default
        spelling = {word.lower(): word for word in known} | {
            a.lower(): word for a, word in getattr(known, "aliases", {}).items()
        }
        return spelling.get(str(said).lower(), self.entries[path].default)

    def optimizer(self) -> str:
        """The optimizer's name: `unlearn.optimizer`, or Sophia by the WAGLE family's flag."""
        flag = ("unlearn", "sophia")
        asked = flag in self.said and str(self.said[flag].value).lower() in ("true", "1")
        return "Sophia" if asked else self._word("optimizer", OPTIMIZERS)

    def flatness(self) -> str:
        """The flatness wrapper's name: `unlearn.flatness`, or the end of the method's name."""
        return (self.method().flatness if self._has_method() else None) or self._word("flatness", FLATNESS)

    def active_sections(self) -> set[str]:
        """The sections of everything that takes part in this run."""
        methods = self.method().sections if self._has_method() else ()
        return {
            *methods,
            f"unlearn.optim.{self.optimizer()}",
            f"unlearn.flat.{self.flatness()}",
            f"unlearn.combine.{self._word('combiner', COMBINERS)}",
        }

    def double_words(self) -> list[str]:
        """What is said in two ways that differ."""
        found = []
        if self.optimizer() != self._word("optimizer", OPTIMIZERS) and ("unlearn", "optimizer") in self.said:
            found.append(
                f"unlearn.sophia and unlearn.optimizer {self._word('optimizer', OPTIMIZERS)}: say one"
            )
        if self.flatness() != self._word("flatness", FLATNESS) and ("unlearn", "flatness") in self.said:
            found.append(
                f"unlearn.unlearn_method ends in {self.flatness()} but unlearn.flatness is "
                f"{self._word('flatness', FLATNESS)}: say one"
            )
        return found

    def set_aside_wrong(self) -> list[str]:
        """Every value that its checker refuses, which is then as if it had not been said."""
        found = []
        for path, said in list(self.said.items()):
            try:
                self.entries[path].checker.check(said.value)
                expected = "" if _is_utf8(said.value) else IN_LOCALE
            except ValueError as error:
                expected = str(error)
            if expected:
                del self.said[path]
                found.append(
                    f"{'.'.join(path)}: expected {expected}, got {shown(said.value)} ({said.origin})"
                )
        return found

    def value(self, path: tuple[str, ...]) -> Any:
        entry = self.entries[path]
        return entry.checker.check(self.said[path].value) if path in self.said else entry.default

    def build(self, section: str) -> Any:
        """The dataclass of a section with its checked values."""
        path = tuple(section.split("."))
        return self.classes[section](
            **{name: self.value((*path, name)) for name, *_ in knobs_of(self.classes[section])}
        )

    def _idle_sections(self) -> dict[str, str]:
        """Sections and keys that have no effect on this run, with the reason."""
        said = lambda name: self.value(tuple(name.split(".")))
        objectives = self.method().sections
        alternates = {objective.alternates for objective in objectives.values()}
        alternates |= {"refusals"} if self.method().retain == "AP" else set()
        idle = {
            "unlearn.lora": "" if said("unlearn.use_lora") else "unlearn.use_lora is off",
            "logger.wandb": "" if said("overall.logger") == "wandb" else "overall.logger is not wandb",
            "dataset.refusals": "" if "refusals" in alternates else "the method does not train refusals",
            "unlearn.gamma": "" if self._has_side("retain") else f"{self.method().name} has no retain side",
            "unlearn.forget_weight": (
                "" if self._has_side("forget") else f"{self.method().name} has no forget loss to weigh"
            ),
            "unlearn.adam_beta2": (
                "" if self.optimizer() == "AdamW" else f"the optimizer is {self.optimizer()}"
            ),
            **dict.fromkeys(
                (f"paraphrases.{item.name}" for item in fields(Server)),
                "" if said("paraphrases.writer") == "endpoint" else "paraphrases.writer is start",
            ),
            **dict.fromkeys(
                START_KEYS, "" if said("paraphrases.writer") == "start" else "paraphrases.writer is endpoint"
            ),
            **dict.fromkeys(
                SERVER_KEYS, "" if said("judge.kind") == "lm" else f"judge.kind is {said('judge.kind')}"
            ),
            "judge.max_tokens": (
                "" if said("judge.kind") in ("lm", "local") else f"judge.kind is {said('judge.kind')}"
            ),
            "judge.model": (
                "" if said("judge.kind") in ("lm", "local") else f"judge.kind is {said('judge.kind')}"
            ),
            "judge.nli_model": (
                ""
                if any("semantic" in name for name in said("evaluate.metrics"))
                else "no metric asks for entailment"
            ),
            "judge.threshold": (
                "" if said("judge.kind") == "embedding" else f"judge.kind is {said('judge.kind')}"
            ),
            "evaluate.top_p": (
                "" if said("evaluate.temperature") else "evaluate.temperature is 0, which is greedy"
            ),
            "evaluate.rounds": (
                ""
                if said("evaluate.decoding") == "more" or "decoding" in said("evaluate.metrics")
                else "evaluate.decoding is not more"
            ),
            **dict.fromkeys(
                COT_KEYS,
                "" if {"unlearn.CoT", "unlearn.R2MU"} & set(objectives) else "the method has no CoT term",
            ),
            **dict.fromkeys(TRACE_KEYS, "" if self._reads_traces() else "the method reads no traces"),
            "benchmarks": "" if self._has_benchmarks() else "benchmarks.suite and .tasks name nothing to run",
            **dict.fromkeys(
                ("benchmarks.base_url", "benchmarks.key_env", "benchmarks.concurrency"),
                "" if said("benchmarks.backend") == "server" else "benchmarks.backend is not server",
            ),
            "dataset.environment_dataset_name": (
                "" if "unlearn.ILU" in objectives else "the method has no ILU"
            ),
        }
        return {name: reason for name, reason in idle.items() if reason}

    def remarks(self) -> list[str]:
        """What was said without effect: keys of methods that do not take part, keys that do nothing any
        more."""
        idle, active = self._idle_sections(), self.active_sections()
        found = list(self.against_parity)
        found += [
            f"{'.'.join(path)} is set but the method is {self.method().name} ({said.origin})"
            for path, said in self.whole_method
            if parse_method(path[1]) != self.method()
        ]
        parity = self._word("parity", PARITY)
        if parity != "none" and not active & PARITY[parity].keys():
            found.append(
                f"unlearn.parity {parity} changes nothing in {self.method().name}: it presets"
                f" {', '.join(PARITY[parity])}"
            )
        for path, said in self.said.items():
            name, section = ".".join(path), ".".join(path[:-1])
            if self.value(path) == self.entries[path].default:
                continue
            if self.knobs[path].obsolete:
                found.append(
                    f"{name} is accepted but does nothing: {self.knobs[path].obsolete} ({said.origin})"
                )
            elif section in idle or name in idle:
                found.append(
                    f"{name} is set without effect: {idle.get(section) or idle[name]} ({said.origin})"
                )
            elif section not in SECTIONS and section not in active:
                found.append(f"{name} is set but {self._chosen(section)} ({said.origin})")
        return found

    def _has_benchmarks(self) -> bool:
        suites = set(self.value(("benchmarks", "suite"))) - {NONE}
        by_task = self.value(("unlearn", "task_name")) == "wmdp"
        return bool(self.value(("benchmarks", "tasks")) or suites - {AUTO} or (suites and by_task))

    def _reads_traces(self) -> bool:
        return any("traces" in self.build(section).parts for section in self.method().sections)

    def _has_side(self, side: str) -> bool:
        """Does something on that side take part in the loss?"""
        method = self.method()
        forget = self.build(f"unlearn.{method.forget}") if method.forget else None
        if side == "forget":
            return bool(forget and forget.parts)
        return bool(method.retain or (forget and ("retain" in forget.parts or forget.own_retain())))

    def _chosen(self, section: str) -> str:
        """What was chosen instead of a section."""
        if section.startswith("unlearn.optim."):
            return f"the optimizer is {self.optimizer()}"
        if section.startswith("unlearn.combine."):
            return f"the combiner is {self._word('combiner', COMBINERS)}"
        return (
            f"the flatness is {self.flatness()}"
            if section.startswith("unlearn.flat.")
            else f"the method is {self.method().name}"
        )


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__} {shown(value)}"


def _is_utf8(value: Any) -> bool:
    """Python keeps bytes of the command line that are not UTF-8 as lone surrogates."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


# --- From argv to Settings ----------------------------------------------------------------------------------

Rules = Callable[[Settings], list[str]]
"""What a script itself demands of its settings: complaints, none when all is well."""


def settle_settings(
    config: StrictConfig,
    files: Sequence[str],
    flags: dict[str, Any],
    defaults: dict[str, Any],
    wrong: Sequence[str] = (),
    rules: Rules = lambda settings: [],
) -> Settings:
    """Read all sources, check everything, build the settings. Complaints (one line each, after those already
    known) when anything is wrong. Values that are wrong are set aside, so that the rules can still look at
    the others."""
    wrong = [*wrong, *config.take(defaults, "the script's default")]
    for name in files:
        wrong += _take_file(config, name)
    joined = {key: ",".join(text) if isinstance(text, list) else text for key, text in flags.items()}
    said = {key: None if text == "null" else text for key, text in joined.items() if text is not None}
    wrong += config.take(said, "command line")
    wrong += _take_memory(config)
    wrong += config.settle() + config.double_words() + config.set_aside_wrong()
    config.apply_parity()
    optimizer, flatness = config.optimizer(), config.flatness()
    settings = Settings(
        overall=config.build("overall"),
        unlearn=replace(config.build("unlearn"), optimizer=optimizer, flatness=flatness),
        lora=config.build("unlearn.lora"),
        method=config.method(),
        components={section: config.build(section) for section in config.method().sections},
        optimizer=config.build(f"unlearn.optim.{optimizer}"),
        combiner=config.build(f"unlearn.combine.{config._word('combiner', COMBINERS)}"),
        flatness=None if flatness == "none" else config.build(f"unlearn.flat.{flatness}"),
        dataset=config.build("dataset"),
        generation=config.build("generation"),
        traces=config.build("traces"),
        paraphrases=config.build("paraphrases"),
        mask=config.build("mask"),
        evaluate=config.build("evaluate"),
        judge=config.build("judge"),
        benchmarks=config.build("benchmarks"),
        logger=config.build("logger"),
        json_logger=config.build("logger.json"),
        wandb_logger=config.build("logger.wandb"),
    )
    refused = {line.partition(":")[0] for line in wrong}  # their defaults stand in, which nobody chose
    broken = _broken(config, lambda: broken_rules(settings) + rules(settings))
    broken = [line for line in broken if line.partition(":")[0] not in refused]
    # Which rows are meant is known once files, model and data set can be read.
    _raise(wrong + broken or _data_is_named(config, settings))
    for remark in (*config.remarks(), *doubts(settings)):
        log.warning(remark)
    for path, value in config.said.items():
        log.debug("%s = %r (%s)", ".".join(path), value.value, value.origin)
    return settings


def _raise(lines: Sequence[str]) -> None:
    if lines:
        raise Complaints("\n".join(f"  {line}" for line in lines))


def _broken(config: StrictConfig, rules: Callable[[], list[str]]) -> list[str]:
    """The complaints of rules; a path that the system refuses to look at (a name too long, a folder that is
    forbidden) is one."""
    try:
        return rules()
    except OSError as error:
        place = str(error.filename)
        keys = [".".join(path) for path, said in config.said.items() if str(said.value).strip("/") in place]
        return [f"{keys[0] if keys else 'a path'}: {place[:80]}: {error.strerror}"]


def _take_memory(config: StrictConfig) -> list[str]:
    """What the model remembers of the run that saved it, for all that nobody set."""
    name = config.said[MODEL].value if MODEL in config.said else config.entries[MODEL].default
    try:
        folder = Path(str(name)).expanduser()
        memory = recall(folder, data_is_named=DATA[0] in config.said)
    except UserError as error:
        return [str(error)]
    except (OSError, RuntimeError, ValueError):  # a name that is no path: it is checked with all others
        return []
    unset = {
        section: {key: value for key, value in values.items() if (section, key) not in config.said}
        for section, values in memory.items()
    }
    return config.take(unset, f"{folder / MEMORY}, which the run that saved the model wrote")


def _data_is_named(config: StrictConfig, settings: Settings) -> list[str]:
    """A complaint where the rows would be ours by default and the model is not."""
    if any(path in config.said for path in DATA):
        return []
    return [
        f"dataset.forget_dataset_name: which rows go with {settings.overall.model_name}? It remembers none,"
        " and those of the fictional models would be taken. Name a data set (dataset.forget_dataset_name"
        " Tofu_forget10, Fictional_forget10, ...) or your own rows (Folder_forget, with dataset.data_dir)"
    ]


def _take_file(config: StrictConfig, name: str) -> list[str]:
    if Path(name).suffix.lower() in (".yaml", ".yml", ".toml", ".ini", ".py"):
        return [f"{name}: --config_file takes JSON, such as configs/fictional/npo+ft.json"]
    try:
        tree = read_json(name)
    except UserError as error:
        return [f"{error}{'' if Path(name).exists() else near_path(name)}"]
    if isinstance(tree, dict) and "model_type" in tree:
        return [f"{name}: is the config of a model (overall.model_name takes its folder), not of a run"]
    return config.take(tree, name)
