"""The settings of every script out of config files and flags, strict, over fastargs.

    settings = resolve_settings(StrictConfig(), ["a.json"], {"unlearn.lr": "1e-5"}, defaults={})

Files in the order given (`--config_file a.json`, repeatable), then flags (`--unlearn.lr 1e-5`); the last
value wins, null unsets a value. Unknown keys, wrong types and impossible combinations are all reported at
once, with where they come from, and end the program with status 2 before anything heavy is imported or
anything is written."""

import logging
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import fastargs

from ...core.files import UserError, read_json
from ...core.json_fields import shown
from ...core.markdown import first_sentence
from ...core.options import Condition, Knob, conditions
from ...core.project import in_project
from ...core.provenance import PROVENANCE, read_provenance
from ...core.registry import near_path
from ...model.benchmarks.suites import AUTO, NONE
from ...model.settings.run_settings import ATTRIBUTES, SECTIONS, Settings
from ...optim import FLATNESS, OPTIMIZERS
from ...unlearn import FORGET, REGULARIZERS, RETAIN, Method, compose, parse_method
from ...unlearn.gradients import COMBINERS
from ...unlearn.method import is_method
from ...unlearn.published.presets import PRESETS
from .aliases import KEY_ALIASES, REMOVED_KEYS, RENAMED_KEYS, hint, other_names
from .checks import checker_for
from .rules.all_rules import broken_rules, warnings

log = logging.getLogger(__name__)

LOCALE_MESSAGE = (
    f"text in the locale's encoding ({sys.getfilesystemencoding()}; set PYTHONUTF8=1, or rename the file)"
)
MODEL = ("overall", "model_name")
DATA = (("dataset", "forget_dataset_name"), ("dataset", "data_dir"))
READ_WITH = {
    "dataset.forget_dataset_name": ("dataset.retain_dataset_name", "dataset.data_dir"),
    "dataset.retain_dataset_name": ("dataset.data_dir",),
    "dataset.environment_dataset_name": ("dataset.environment_data_dir",),
    "dataset.cot_dataset_name": ("dataset.cot_data_dir",),
}
"""Key -> keys that rules check against it: not against the default that stands in for a wrong value."""
FACTS = {
    "method.sides": "{method} has no {value} side",
    "method.parts": "{method} reads no part {value}",
    "method.alternates": "{method} trains no {value}",
    "run.benchmarks": "benchmarks.suite and benchmarks.tasks name nothing to run",
}
"""Facts of a run that conditions of keys refer to -> what is reported where one does not hold."""


@dataclass(frozen=True)
class ConfigValue:
    """A value, the source that set it (`a.json`, `command line`), and its priority: a later source wins."""

    value: Any
    source: str
    priority: int


class ConfigError(UserError):
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


def knobs_of(section: type) -> Iterator[tuple[str, Any, Knob, Any]]:
    """Name, type, knob and default of every field of a settings or objective class."""
    kinds = typing.get_type_hints(section)
    for item in fields(section):
        if "knob" not in item.metadata:
            raise TypeError(f"{section.__name__}.{item.name}: declare the field with knob(default, help)")
        yield item.name, kinds[item.name], item.metadata["knob"], item.default


class StrictConfig(fastargs.Config):
    """fastargs' declarations (sections, parameters, conditions) with our own reading and checking."""

    def __init__(self):
        super().__init__()
        self.given: dict[tuple[str, ...], ConfigValue] = {}
        self.whole_method: list[tuple[tuple[str, ...], ConfigValue]] = []
        self.priority = 0
        self.knobs: dict[tuple[str, ...], Knob] = {}
        self.preset_overrides: list[str] = []
        self.renamed: list[str] = []
        """Keys given by a former name, or that are gone."""
        self.errors: list[str] = []
        """What was wrong with the input before it was read."""
        self.flags_source = "command line"
        self.defaults_source = "the script's default"
        self.classes = SECTIONS | component_sections()
        for name, section in self.classes.items():
            self._declare(name, section)

    def _declare(self, name: str, section: type) -> None:
        doc = first_sentence(section.__doc__)
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

    def load(self, tree: Any, source: str) -> list[str]:
        """Take in a nested dict (dotted keys allowed) from one source; returns what is wrong with its shape.
        A `note` on the top level is for readers."""
        self.priority += 1
        if not isinstance(tree, dict):
            return [f"{source}: expected an object of sections, got {_kind(tree)}"]
        return self._load_section((), {key: value for key, value in tree.items() if key != "note"}, source)

    def _load_section(self, path: tuple[str, ...], tree: dict, source: str) -> list[str]:
        return [
            complaint
            for key, value in tree.items()
            for complaint in self._load_node((*path, *key.split(".")), value, source)
        ]

    def _load_node(self, path: tuple[str, ...], value: Any, source: str) -> list[str]:
        name = ".".join(path)
        if name in REMOVED_KEYS:
            self.renamed.append(f"{name} is gone: {REMOVED_KEYS[name]} ({source})")
            return []
        if name in RENAMED_KEYS:
            self.renamed.append(f"{name} is now {RENAMED_KEYS[name]} ({source})")
        path = tuple((KEY_ALIASES | RENAMED_KEYS).get(name, name).split("."))
        if path in self.entries and not isinstance(value, dict):
            self._keep(path, ConfigValue(in_project(value), source, self.priority))
        elif path in self._section_paths() or self.is_whole_method(path):
            if isinstance(value, dict):
                return self._load_section(path, value, source)
            return [f"{source}: {'.'.join(path)} is a section, expected an object, got {_kind(value)}"]
        elif path in self.entries:
            return [f"{source}: {'.'.join(path)} is a value, not a section"]
        elif self.is_whole_method(path[:2]) and self.alias_target(path):
            self.whole_method.append((path, ConfigValue(value, source, self.priority)))
        else:
            return self._unknown(".".join(path), value, source)
        return []

    def _unknown(self, name: str, value: Any, source: str) -> list[str]:
        """Errors about a key, or about each key of a section, that is known to others and not to us."""
        known = [".".join(path) for path in (*self.entries, *self._section_paths())]
        names = other_names(value, name) if isinstance(value, dict) else []
        return [f"{source}: unknown key {key!r}{hint(key, known)}" for key in names or [name]]

    def _keep(self, path: tuple[str, ...], given: ConfigValue) -> None:
        if given.value is None:
            self.given.pop(path, None)
        else:
            self.given[path] = given

    def _section_paths(self) -> set[tuple[str, ...]]:
        return {
            tuple(name.split(".")[:n])
            for name in (*self.classes, *KEY_ALIASES, *RENAMED_KEYS)
            for n in range(1, name.count(".") + 2)
            if name in self.classes or n <= name.count(".")
        }

    def is_whole_method(self, path: tuple[str, ...]) -> bool:
        """Is this a section spelt as a whole method, `unlearn.NPO+FT`, as the WAGLE family writes them?"""
        return len(path) == 2 and path[0] == "unlearn" and is_method(path[1])

    def alias_target(self, path: tuple[str, ...]) -> tuple[str, ...] | None:
        """Where `unlearn.NPO+FT.<key>` leads: the first of its objectives that has such a key, or
        `unlearn.<key>`."""
        method = parse_method(path[1])
        sections = [
            *method.sections,
            *([f"unlearn.flat.{method.flatness}"] if method.flatness else []),
            "unlearn",
        ]
        targets = [(*section.split("."), *path[2:]) for section in sections]
        return next((target for target in targets if target in self.entries), None)

    def resolve_method_sections(self) -> list[str]:
        """Hand the keys of the whole-method section of the chosen method to their targets; those of others
        are reported. Returns the conflicts: a target that the same source set to something else."""
        conflicts = []
        for path, given in self.whole_method if self._has_method() else ():
            target = self.alias_target(path)
            assert target, "only keys that lead somewhere are kept as those of a whole method"
            direct = self.given.get(target)
            if parse_method(path[1]) != self.method() or (direct and direct.priority > given.priority):
                continue
            if direct and direct.priority == given.priority and direct.value != given.value:
                conflicts.append(
                    f"{given.source}: {'.'.join(path)} is {given.value!r} but {'.'.join(target)} is"
                    f" {direct.value!r}; set only one of the two"
                )
            self._keep(target, given)
        return conflicts

    def apply_preset(self) -> None:
        """The switches of `unlearn.published`, for what takes part where no source sets it otherwise."""
        name = self._word("published", PRESETS)
        for section, preset in PRESETS[name].items():
            for key, value in preset.items() if section in self.active_sections() | set(SECTIONS) else ():
                path = (*section.split("."), key)
                if path in self.given and self.value(path) != value:
                    self.preset_overrides.append(
                        f"unlearn.published {name} would set {'.'.join(path)} to {value}, but"
                        f" {self.given[path].source} says {self.given[path].value}, which counts"
                    )
                self.given.setdefault(path, ConfigValue(value, f"unlearn.published {name}", 0))

    def _has_method(self) -> bool:
        try:
            return bool(self.method())
        except UserError:
            return False

    # --- checking -------------------------------------------------------------------------------------------

    def method(self) -> Method:
        """The method that the values so far name; UserError when there is no such method."""
        path = ("unlearn", "unlearn_method")
        return parse_method(self.given[path].value if path in self.given else self.entries[path].default)

    def _word(self, key: str, known: dict) -> str:
        """The value of `unlearn.<key>` if it is a known word in any case, else its default: what is wrong is
        given elsewhere."""
        path = ("unlearn", key)
        given = self.given[path].value if path in self.given else self.entries[path].default
        spelling = {word.lower(): word for word in known} | {
            a.lower(): word for a, word in getattr(known, "aliases", {}).items()
        }
        return spelling.get(str(given).lower(), self.entries[path].default)

    def optimizer(self) -> str:
        """The optimizer's name: `unlearn.optimizer`, or Sophia by the WAGLE family's flag."""
        flag = ("unlearn", "sophia")
        asked = flag in self.given and str(self.given[flag].value).lower() in ("true", "1")
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

    def conflicting_keys(self) -> list[str]:
        """What is given in two ways that differ."""
        found = []
        if self.optimizer() != self._word("optimizer", OPTIMIZERS) and ("unlearn", "optimizer") in self.given:
            found.append(
                f"unlearn.sophia and unlearn.optimizer {self._word('optimizer', OPTIMIZERS)}: set only one of"
                " the two"
            )
        if self.flatness() != self._word("flatness", FLATNESS) and ("unlearn", "flatness") in self.given:
            found.append(
                f"unlearn.unlearn_method ends in {self.flatness()} but unlearn.flatness is "
                f"{self._word('flatness', FLATNESS)}: set only one of the two"
            )
        return found

    def drop_invalid(self) -> list[str]:
        """Every value that its checker refuses, which is then as if it had not been given."""
        found = []
        for path, given in list(self.given.items()):
            try:
                self.entries[path].checker.check(given.value)
                expected = "" if _is_utf8(given.value) else LOCALE_MESSAGE
            except ValueError as error:
                expected = str(error)
            if expected:
                del self.given[path]
                found.append(
                    f"{'.'.join(path)}: expected {expected}, got {shown(given.value)} ({given.source})"
                )
        return found

    def value(self, path: tuple[str, ...]) -> Any:
        entry = self.entries[path]
        if path in self.given:
            return entry.checker.check(self.given[path].value)
        return in_project(entry.default)

    def build(self, section: str) -> Any:
        """The dataclass of a section with its checked values."""
        path = tuple(section.split("."))
        return self.classes[section](
            **{name: self.value((*path, name)) for name, *_ in knobs_of(self.classes[section])}
        )

    def why_unused(self, path: tuple[str, ...]) -> str:
        """Why a key has no effect on this run; empty where it has one."""
        section = self.classes[".".join(path[:-1])]
        by_section = getattr(section, "only_if", {})
        alternatives = conditions(
            self.knobs[path].only_if or by_section.get(path[-1]) or by_section.get("*") or ()
        )
        reasons = [self._unmet(condition) for condition in alternatives]
        return "" if "" in reasons else next(iter(reasons), "")

    def _unmet(self, condition: Condition) -> str:
        """Why a condition of `Knob.only_if` does not hold; empty where it does."""
        key, *accepted = condition
        actual = self._facts[key] if key in self._facts else self.value(tuple(key.split(".")))
        held = actual if isinstance(actual, tuple | frozenset) else (actual,)
        if any(value(actual) if callable(value) else value in held for value in accepted):
            return ""
        if key in FACTS:
            return FACTS[key].format(method=self.method().name, value=accepted[0])
        text = ",".join("null" if value is None else str(value) for value in held)
        return f"{key} is {text.lower() if isinstance(actual, bool) else text}"

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """Facts of the run that conditions refer to, beside the values of keys; known once these are
        final."""
        method = self.method()
        components = {section: self.build(section) for section in method.sections}
        composition = compose(method, components)
        alternates = {objective.alternates for objective in components.values()}
        if "retain_alternate" in composition.parts:
            alternates.add("refusals")
        return {
            "method.sides": frozenset(filter(self._has_side, ("forget", "retain"))),
            "method.parts": composition.parts,
            "method.alternates": frozenset(alternates),
            "run.benchmarks": self._has_benchmarks(),
            "unlearn.optimizer": self.optimizer(),
        }

    def unused_keys(self) -> list[str]:
        """What was given without effect: keys of methods that do not take part, keys that do nothing any
        more."""
        active = self.active_sections()
        found = [*self.renamed, *self.preset_overrides]
        found += [
            f"{'.'.join(path)} is set but the method is {self.method().name} ({given.source})"
            for path, given in self.whole_method
            if parse_method(path[1]) != self.method()
        ]
        preset = self._word("published", PRESETS)
        if preset != "none" and not active & PRESETS[preset].keys():
            found.append(
                f"unlearn.published {preset} changes nothing in {self.method().name}: it presets"
                f" {', '.join(PRESETS[preset])}"
            )
        for path, given in self.given.items():
            name, section = ".".join(path), ".".join(path[:-1])
            if self.value(path) == self.entries[path].default:
                continue
            if self.knobs[path].obsolete:
                found.append(
                    f"{name} is accepted but does nothing: {self.knobs[path].obsolete} ({given.source})"
                )
            elif reason := self.why_unused(path):
                found.append(f"{name} is set without effect: {reason} ({given.source})")
            elif section not in SECTIONS and section not in active:
                found.append(f"{name} is set but {self._chosen(section)} ({given.source})")
        return found

    def _has_benchmarks(self) -> bool:
        suites = set(self.value(("benchmarks", "suite"))) - {NONE}
        by_task = self.value(("unlearn", "task_name")) == "wmdp"
        return bool(self.value(("benchmarks", "tasks")) or suites - {AUTO} or (suites and by_task))

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


def resolve_settings(
    config: StrictConfig,
    files: Sequence[str],
    flags: Mapping[str, Any],
    defaults: dict[str, Any],
    rules: Rules = lambda settings: [],
) -> Settings:
    """Read all sources, check everything, build the settings.

    Args:
        config: an empty one; its `errors` are what is known to be wrong already.
        files: config files, in their order.
        flags: key -> value, stronger than files. None is a flag that was not given; `null` takes a value
            back; a list of words is joined by commas.
        defaults: the script's own values, weaker than any file or flag.
        rules: what the script itself demands.

    Raises:
        ConfigError: one line for each thing that is wrong. Values that are wrong are set aside, so that the
            rules can still look at the others.
    """
    wrong = [*config.errors, *config.load(defaults, config.defaults_source)]
    for name in files:
        wrong += _load_file(config, name)
    joined = {key: ",".join(text) if _is_words(text) else text for key, text in flags.items()}
    given = {key: None if text == "null" else text for key, text in joined.items() if text is not None}
    wrong += config.load(given, config.flags_source)
    wrong += _load_provenance(config)
    wrong += config.resolve_method_sections() + config.conflicting_keys() + config.drop_invalid()
    config.apply_preset()
    optimizer, flatness = config.optimizer(), config.flatness()
    built = {attribute: config.build(section) for section, attribute in ATTRIBUTES.items()}
    built["unlearn"] = replace(built["unlearn"], optimizer=optimizer, flatness=flatness)
    settings = Settings(
        **built,
        method=config.method(),
        components={section: config.build(section) for section in config.method().sections},
        optimizer=config.build(f"unlearn.optim.{optimizer}"),
        combiner=config.build(f"unlearn.combine.{config._word('combiner', COMBINERS)}"),
        flatness=None if flatness == "none" else config.build(f"unlearn.flat.{flatness}"),
    )
    refused = {line.partition(":")[0] for line in wrong}  # their defaults stand in, which nobody chose
    refused |= {key for name in refused for key in READ_WITH.get(name, ())}
    broken = _broken(config, lambda: broken_rules(settings) + rules(settings))
    broken = [line for line in broken if line.partition(":")[0] not in refused]
    # Which rows are meant is known once files, model and data set can be read.
    _raise(wrong + broken or _data_is_named(config, settings))
    for remark in (*config.unused_keys(), *warnings(settings)):
        log.warning(remark)
    for path, value in config.given.items():
        log.debug("%s = %r (%s)", ".".join(path), value.value, value.source)
    return settings


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _raise(lines: Sequence[str]) -> None:
    if lines:
        raise ConfigError("\n".join(f"  {line}" for line in lines))


def _broken(config: StrictConfig, rules: Callable[[], list[str]]) -> list[str]:
    """The complaints of rules; a path that the system refuses to look at (a name too long, a folder that is
    forbidden) is one."""
    try:
        return rules()
    except OSError as error:
        place = str(error.filename)
        keys = [
            ".".join(path) for path, given in config.given.items() if str(given.value).strip("/") in place
        ]
        return [f"{keys[0] if keys else 'a path'}: {place[:80]}: {error.strerror}"]


def _load_provenance(config: StrictConfig) -> list[str]:
    """What the model remembers of the run that saved it, for all that nobody set."""
    name = in_project(config.given[MODEL].value if MODEL in config.given else config.entries[MODEL].default)
    try:
        folder = Path(str(name)).expanduser()
        memory = read_provenance(folder, data_is_named=DATA[0] in config.given)
    except UserError as error:
        return [str(error)]
    except (OSError, RuntimeError, ValueError):  # a name that is not a path: it is checked with all others
        return []
    unset = {
        section: {key: value for key, value in values.items() if (section, key) not in config.given}
        for section, values in memory.items()
    }
    return config.load(unset, f"{folder / PROVENANCE}, which the run that saved the model wrote")


def _data_is_named(config: StrictConfig, settings: Settings) -> list[str]:
    """A complaint where the rows would be ours by default and the model is not."""
    if any(path in config.given for path in DATA):
        return []
    return [
        f"dataset.forget_dataset_name: which rows go with {settings.overall.model_name}? It remembers none,"
        " and those of the fictional models would be taken. Name a data set (dataset.forget_dataset_name"
        " Tofu_forget10, Fictional_forget10, ...) or your own rows (Folder_forget, with dataset.data_dir)"
    ]


def _load_file(config: StrictConfig, name: str) -> list[str]:
    if Path(name).suffix.lower() in (".yaml", ".yml", ".toml", ".ini", ".py"):
        return [f"{name}: --config_file takes JSON, such as configs/fictional/npo+ft.json"]
    name = in_project(name)
    try:
        tree = read_json(name)
    except UserError as error:
        return [f"{error}{'' if Path(name).exists() else near_path(name)}"]
    if isinstance(tree, dict) and "model_type" in tree:
        return [f"{name}: is the config of a model (overall.model_name takes its folder), not of a run"]
    return config.load(tree, name)
