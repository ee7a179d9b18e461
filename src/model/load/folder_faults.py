"""Which file of a model's folder is broken, and how: the libraries that read them often name none."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.files import UserError, read_json
from ...core.json_fields import OBJECT, STRING, TEXT, Kind, check_fields, check_value, number

LAYERS = Kind("a whole number from 1 to 1000", lambda value: type(value) is int and 1 <= value <= 1000)
TOKEN = Kind("a token id", lambda value: type(value) is int and -1 <= value < 2**31)  # some say -1 for none
TOKENS = Kind(
    "a token id or a list of them",
    lambda value: all(map(TOKEN.holds, value if isinstance(value, list) else [value])),
)
IDS = {"bos_token_id": TOKEN, "eos_token_id": TOKENS, "pad_token_id": TOKEN}
SPECIAL = Kind(
    "a token",
    lambda value: STRING.holds(value.get("content") if isinstance(value, dict) else value),
)
LIST = Kind("a list", lambda value: isinstance(value, list))
WEIGHT_MAP = Kind(
    "an object, weight -> file",
    lambda value: isinstance(value, dict) and all(map(TEXT.holds, value.values())),
)
OBJECTS: dict[str, Mapping[str, Kind]] = {
    # transformers would build any number of layers before it looks at the weights.
    "config.json": dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS) | IDS,
    "generation_config.json": IDS,
    "tokenizer_config.json": {
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), SPECIAL),
        "tokenizer_class": TEXT,
        "model_max_length": number(0),
    },
    "special_tokens_map.json": {},
    "added_tokens.json": {},
    "adapter_config.json": {"base_model_name_or_path": TEXT},
    "model.safetensors.index.json": {"weight_map": WEIGHT_MAP},
    "pytorch_model.bin.index.json": {"weight_map": WEIGHT_MAP},
}
"""Small files, each a JSON object, and what some of their fields hold where they are there."""


def check_folder(folder: Path) -> None:
    """UserError naming the file when one of the small files of a folder is no JSON object. Some of them are
    ignored without a word where they are broken."""
    for name, fields in OBJECTS.items():
        path = folder / name
        if not path.is_file():
            continue
        content = read_json(path, unique_keys=False)
        check_value(str(path), content, OBJECT)
        check_fields(str(path), {k: v for k, v in content.items() if v is not None}, {}, fields)


def broken_file(folder: Path) -> str | None:
    """The first file of a folder that its own reader refuses, and its reason; None when each can be read."""
    for path, read in _readers(folder):
        try:
            read()
        except UserError as error:
            return str(error)
        except Exception as error:  # each library raises kinds of its own, tokenizers a bare Exception
            return f"{path}: {reason_of(error)}"
    return None


def _readers(folder: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """The files of a folder that are there, each with its reader, those first that others build on."""
    from safetensors import safe_open
    from tokenizers import Tokenizer
    from transformers import AutoConfig, GenerationConfig

    readers: list[tuple[str, Callable[[Path], Any]]] = [
        ("config.json", lambda path: AutoConfig.from_pretrained(path.parent, trust_remote_code=False)),
        ("generation_config.json", lambda path: GenerationConfig.from_pretrained(path.parent)),
        ("tokenizer.json", _check_tokenizer),
        ("tokenizer.json", lambda path: Tokenizer.from_file(str(path))),
        ("*.safetensors", lambda path: safe_open(path, "pt")),
        ("config.json", _build),
        # Last, since it reads the others too.
        ("tokenizer_config.json", _read_tokenizer),
    ]
    for pattern, read in readers:
        for path in sorted(folder.glob(pattern)):
            yield path, lambda path=path, read=read: read(path)


def _check_tokenizer(path: Path) -> None:
    """UserError when a tokenizer.json is none; a broken one is placed by line and column."""
    content = read_json(path, unique_keys=False)
    check_value(str(path), content, OBJECT)
    check_fields(str(path), content, {"model": OBJECT, "added_tokens": LIST})


def _read_tokenizer(path: Path) -> None:
    from transformers import AutoTokenizer

    if path.with_name("tokenizer.json").is_file():
        AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False)


def _build(path: Path) -> None:
    """Build the causal language model of a config, without weights; another kind of model is left alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    if any(str(name).endswith("ForCausalLM") for name in config.architectures or ()):
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def missing_files(folder: Path) -> str:
    """A remark on files that a folder lacks, to end a message."""
    names = ("config.json", "tokenizer.json") if folder.is_dir() else ()
    lacking = [name for name in names if not (folder / name).is_file()]
    return f" (the folder has no {' and no '.join(lacking)})" if lacking else ""


def reason_of(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    # A KeyError's text is only the key, and some exceptions have none.
    named = text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()
    return named[:300]
