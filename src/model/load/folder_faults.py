"""Diagnosis of broken model folders. The libraries that read them often name no file in their errors."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.files import UserError, read_json
from ...core.json_fields import OBJECT, STRING, TEXT, Kind, check_fields, check_value, number

LAYERS = Kind("a whole number from 1 to 1000", lambda value: type(value) is int and 1 <= value <= 1000)
TOKEN = Kind(
    "a token id", lambda value: type(value) is int and -1 <= value < 2**31
)  # -1: none, in some files
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
"""Small files, each a JSON object, and the kinds of some of their fields, all of them optional."""


def check_folder(folder: Path) -> None:
    """Check the small files of a model folder.

    Raises:
        UserError: a file is not a JSON object, or a field is of another kind; the message names both.
    """
    # Checked before loading, since the libraries silently ignore some of these files when they are broken.
    for name, fields in OBJECTS.items():
        path = folder / name
        if not path.is_file():
            continue
        content = read_json(path, unique_keys=False)
        check_value(str(path), content, OBJECT)
        check_fields(str(path), {k: v for k, v in content.items() if v is not None}, {}, fields)


def broken_file(folder: Path) -> str | None:
    """The first unreadable file of a folder with the reader's reason; None when each can be read."""
    for path, read in _readers(folder):
        try:
            read()
        except UserError as error:
            return str(error)
        except Exception as error:  # each library raises kinds of its own, tokenizers a bare Exception
            return f"{path}: {reason_of(error)}"
    return None


def _readers(folder: Path) -> Iterator[tuple[Path, Callable[[], Any]]]:
    """The files of a folder, each with its reader."""
    from safetensors import safe_open
    from tokenizers import Tokenizer
    from transformers import AutoConfig, GenerationConfig

    # Ordered by dependency: the first fault found is then the cause of those after it.
    readers: list[tuple[str, Callable[[Path], Any]]] = [
        ("config.json", lambda path: AutoConfig.from_pretrained(path.parent, trust_remote_code=False)),
        ("generation_config.json", lambda path: GenerationConfig.from_pretrained(path.parent)),
        ("tokenizer.json", _check_tokenizer),
        ("tokenizer.json", lambda path: Tokenizer.from_file(str(path))),
        ("*.safetensors", lambda path: safe_open(path, "pt")),
        ("config.json", _build_model),
        ("tokenizer_config.json", _read_tokenizer),  # reads the other tokenizer files too
    ]
    for pattern, read in readers:
        for path in sorted(folder.glob(pattern)):
            yield path, lambda path=path, read=read: read(path)


def _check_tokenizer(path: Path) -> None:
    """UserError when the file is not a tokenizer.json; broken JSON is located by line and column, which the
    tokenizers library omits."""
    content = read_json(path, unique_keys=False)
    check_value(str(path), content, OBJECT)
    check_fields(str(path), content, {"model": OBJECT, "added_tokens": LIST})


def _read_tokenizer(path: Path) -> None:
    from transformers import AutoTokenizer

    if path.with_name("tokenizer.json").is_file():
        AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False)


def _build_model(path: Path) -> None:
    """Build the causal language model of a config on the meta device; other kinds of models are skipped."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(path.parent, trust_remote_code=False)
    if any(str(name).endswith("ForCausalLM") for name in config.architectures or ()):
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def missing_files(folder: Path) -> str:
    """The suffix of a message that lists missing files of a folder; empty when nothing is missing."""
    if not folder.is_dir():
        return ""
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    return f" (the folder has no {' and no '.join(missing)})" if missing else ""


def reason_of(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    # A KeyError's text is only the key, and some exceptions have none.
    if not text or isinstance(error, KeyError):
        text = f"{type(error).__name__} {text}".strip()
    return text[:300]
