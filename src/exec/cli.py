"""From the words of the command line to settings, and the help.

    settings = read_settings(sys.argv[1:], "what the script does")

--help is short; --help all lists every key, --help unlearn.NPO those of a section, --help forget/prob what a
metric is. Nothing heavy is imported and nothing is written before the settings are right.
"""

import argparse
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..core.files import UserError
from ..core.markdown import first_sentence
from ..core.registry import did_you_mean
from ..core.screen import show, visible
from ..model.settings.run_settings import SECTIONS, Settings
from ..unlearn import parse_method
from .config.aliases import REMOVED_KEYS, RENAMED_KEYS, hint
from .config.checks import takes_several
from .config.reader import (
    ConfigError,
    Rules,
    StrictConfig,
    component_families,
    knobs_of,
    resolve_settings,
)
from .metric_help import metric_help, metric_topics

COMMON = (
    "overall.model_name",
    "unlearn.unlearn_method",
    "unlearn.num_epochs",
    "unlearn.lr",
    "dataset.forget_dataset_name",
    "dataset.retain_dataset_name",
    "dataset.data_dir",
    "dataset.batch_size",
    "evaluate.retain_results",
    "logger.name",
)
"""The keys of the short help."""

USAGE = "%(prog)s [--config_file FILE] [--SECTION.KEY VALUE] [--help [SECTION | KEY | METHOD | METRIC | all]]"
ORDER = (
    "Files come first, in their order, then flags; the last value wins, also among flags. null unsets a"
    " value."
)


def read_settings(
    argv: Sequence[str],
    description: str | None,
    defaults: dict[str, Any] | None = None,
    rules: Rules = lambda settings: [],
    short: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of a script. `defaults` are the script's own, weaker than any file or flag; `short` are
    flags of its own for keys. Ends the program with status 2 and every complaint when the input is not right,
    and with the short help when there is none."""
    config = StrictConfig()
    parser = make_parser(config, description, argv, short or {})
    if topic := help_topic(argv):
        config.load(defaults or {}, "the script's default")
        try:
            text = help_text(topic, config, parser, short or {})
        except UserError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
        if not argv:
            parser.exit(2, text)
        show(text.rstrip("\n"))
        parser.exit(0)
    known, unknown = parser.parse_known_args(argv)
    flags = vars(known)
    try:
        config.errors += unknown_words(parser, unknown)
        return resolve_settings(config, flags.pop("config_file"), flags, defaults or {}, rules)
    except ConfigError as complaints:
        shown = visible(complaints)
        parser.exit(2, f"{parser.prog}: the settings are not right, nothing was started\n{shown}\n")


def unknown_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """ConfigError about what the parser did not know, with the nearest keys. The value of an unknown flag is
    passed over; `key=value` without dashes is Hydra's form of a flag."""
    keys = [flag[2:] for action in parser._actions for flag in action.option_strings if flag[:2] == "--"]
    found, is_value = [], False
    for word in words:
        if is_value and not word.startswith("--"):
            is_value = False
            continue
        flag, equals, value = word.partition("=")
        is_value = flag.startswith("-") and not equals
        name = flag.lstrip("-+~")
        near = f"; write --{name} {value}" if name in keys else hint(name, keys, "--")
        found.append(f"command line: unknown word {word!r}{near}")
    return found


def make_parser(
    config: StrictConfig,
    description: str | None,
    argv: Sequence[str] = (),
    short: Mapping[str, str] = MappingProxyType({}),
) -> argparse.ArgumentParser:
    """One flag per key, grouped by section in the order of a config file, sections that are off included.
    `short`: flag -> key, or `key=value` for a flag that takes no value."""
    parser = _parser(description, USAGE)
    # argparse knows no exponents
    parser._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")
    parser.add_argument(
        "--config_file",
        "--config-file",
        "-C",
        action="append",
        default=[],
        metavar="FILE",
        help="a JSON file of settings; repeatable",
    )
    for section in config.classes:
        _add_section(parser, config, section)
    parser.add_argument(
        "--allow-unscored",
        dest="judge.allow_unscored",
        action="store_const",
        const="true",
        help=argparse.SUPPRESS,
    )
    _add_short(parser, short)
    for name in (*RENAMED_KEYS, *REMOVED_KEYS):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for word in argv:
        flag = word.partition("=")[0]
        path = tuple(flag.removeprefix("--").split("."))
        declared = flag in parser._option_string_actions
        if (
            flag.startswith("--")
            and not declared
            and config.is_whole_method(path[:2])
            and config.alias_target(path)
        ):
            parser.add_argument(flag, help=argparse.SUPPRESS)
    return parser


def _parser(description: str | None, usage: str, column: int = 24) -> argparse.ArgumentParser:
    """A parser without flags, whose help texts begin at most at that column."""
    return argparse.ArgumentParser(
        usage=usage,
        description=description,
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=column),
    )


def _add_section(
    parser: argparse.ArgumentParser, config: StrictConfig, section: str, only: Iterable[str] | None = None
) -> None:
    """The flags of a section as a group of the parser, of the keys in `only` when it is given."""
    kind = config.classes[section]
    group = parser.add_argument_group(section, first_sentence(kind.__doc__).replace("%", "%%"))
    for name, *_ in knobs_of(kind):
        key = f"{section}.{name}"
        if only is None or key in only:
            several = takes_several(config.entries[tuple(key.split("."))].checker)
            options: dict[str, Any] = {"nargs": "+"} if several else {}
            group.add_argument(f"--{key}", metavar="VALUE", help=_help_line(config, key), **options)


def _add_short(parser: argparse._ActionsContainer, short: Mapping[str, str]) -> None:
    for flag, meaning in short.items():
        key, _, value = meaning.partition("=")
        options: dict[str, Any] = {"action": "store_const", "const": value} if value else {"metavar": "VALUE"}
        parser.add_argument(flag, dest=key, help=f"short for --{meaning.replace('=', ' ')}", **options)


# --- Help ---------------------------------------------------------------------------------------------------


def help_topic(argv: Sequence[str]) -> str | None:
    """What help is wanted on: `short` for --help alone or no word at all; None when none is."""
    if not argv:
        return "short"
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--help", "-h", nargs="?", const="short")
    return parser.parse_known_args(argv)[0].help


def help_text(
    topic: str, config: StrictConfig, parser: argparse.ArgumentParser, short: Mapping[str, str]
) -> str:
    """Help on `short`, `all`, a section, a key, a method, a metric or a family of metrics. UserError when
    there is no such thing."""
    if topic == "all":
        return f"{parser.format_help()}\n{ORDER}\n"
    if text := metric_help(topic):
        return text
    if topic != "short":
        return _page(config, _keys_of(topic, config))
    page = _parser(parser.description, USAGE, column=34)
    common = page.add_argument_group("common keys")
    for key in COMMON:
        common.add_argument(f"--{key}", metavar="", help=_help_line(config, key, brief=True))
    if short:
        _add_short(page.add_argument_group("short flags"), short)
    return f"{page.format_help()}\n{_sections(config)}\n{ORDER}\n"


def _page(config: StrictConfig, keys: Sequence[str]) -> str:
    page = _parser(None, argparse.SUPPRESS)
    for section in config.classes:
        if any(key.rpartition(".")[0] == section for key in keys):
            _add_section(page, config, section, keys)
    return page.format_help()


def _keys_of(topic: str, config: StrictConfig) -> list[str]:
    """The keys of a topic: of the section, the key or the method of that name in any case, or of the sections
    whose names end in it. UserError when there are none."""
    keys = [".".join(path) for path in config.entries]
    wanted = topic.removeprefix("--").lower()
    sections = [name for name in config.classes if name.lower() == wanted]
    sections = sections or [name for name in config.classes if name.lower().endswith(f".{wanted}")]
    found = [key for key in keys if key.rpartition(".")[0] in sections or key.lower() == wanted]
    if not found and not sections:
        try:
            sections = list(parse_method(topic).sections)
        except UserError:
            near = did_you_mean(topic, [*config.classes, *keys, *metric_topics()])
            raise UserError(f"--help: there is no section, key, method or metric {topic!r}{near}") from None
        found = [key for key in keys if key.rpartition(".")[0] in sections]
    if not found:
        raise UserError(f"--help: {', '.join(sections) or topic} has no keys")
    return found


def _sections(config: StrictConfig) -> str:
    """What each section is about; those of components by family."""
    texts = {}
    for name in SECTIONS:
        texts[name] = first_sentence(config.classes[name].__doc__)
        if name == "unlearn.lora":
            texts |= {f"{place}NAME": ", ".join(things) for place, things in component_families().items()}
    lines = [
        "sections (--help SECTION lists the keys of one, --help all every key, --help metrics the metrics):"
    ]
    width = max(60, shutil.get_terminal_size().columns - 2)
    for name, text in texts.items():
        lines += textwrap.wrap(f"  {name:<21} {text}", width, subsequent_indent=" " * 24)
    return "\n".join(lines) + "\n"


def _help_line(config: StrictConfig, key: str, brief: bool = False) -> str:
    """What a key means, which values it takes (unless `brief`), and its value when none is given."""
    path = tuple(key.split("."))
    knob, value = config.knobs[path], config.value(path)
    shown = (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else "none"
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else value
    )
    if brief:
        return f"{knob.help} [{shown}]".replace("%", "%%")
    kind = config.entries[path].checker.help()
    text = f"{knob.help}. {kind[:1].upper()}{kind[1:]}; default {shown}."
    return (text + (f" Accepted but unused: {knob.obsolete}." if knob.obsolete else "")).replace("%", "%%")
