"""Conversion of GGUF files (llama.cpp's format) to Hugging Face folders, weights dequantised to float32."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from ...core.files import UserError
from ...core.weight_files import weight_faults
from .folder_faults import reason_of

MAGIC = b"GGUF"


def convert(source: Path, folder: Path) -> None:
    """Write the model and tokenizer of the GGUF file `source` into `folder`.

    Raises:
        UserError: `source` is not a GGUF file, is incomplete, or `folder` already holds a model.
    """
    if not source.is_file() or source.open("rb").read(4) != MAGIC:
        raise UserError(f"{source}: is not a GGUF file")
    if (folder / "config.json").exists():
        raise UserError(f"{folder} already holds a model; choose another folder or remove it")
    try:
        tokenizer, model, loaded = _load(source)
    except Exception as error:  # the readers raise any kind over unexpected bytes
        raise UserError(f"{source}: cannot be read ({reason_of(error)}); was the file cut?") from None
    faults = weight_faults(loaded, type(model).__name__)
    if faults:
        raise UserError(f"{source}: its blocks {' and '.join(faults)}; was the file cut?")
    _clear_quantisation(model)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _load(source: Path) -> tuple[Any, Any, dict]:
    """Tokenizer, dequantised model, and transformers' report on its weights."""
    load: Any = AutoModelForCausalLM.from_pretrained
    model, loaded = load(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(gguf_file=source.name, dequantize=True),
        output_loading_info=True,
    )
    return AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name), model, loaded


def _clear_quantisation(model) -> None:
    """Remove the marks of the quantised file: its weights are plain float32 now, which a loader would try to
    dequantise again."""
    kinds = {parameter.dtype for parameter in model.parameters()}
    if kinds != {torch.float32}:
        raise UserError(f"the GGUF file was not dequantised: it has weights of {sorted(map(str, kinds))}")
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
