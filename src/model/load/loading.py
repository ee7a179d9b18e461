"""Models and tokenizers from a folder or the hub, in the precision a run asks for."""

import contextlib
import copy
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from ...core.encoding import fit_tokenizer
from ...core.files import UserError
from ...core.hub_access import hub_problem, offline_reason
from ...core.weight_files import weight_faults
from ...unlearn.blocks import block_numbers
from .adapters import base_of, is_adapter, merge_adapter, tokenizer_place
from .folder_faults import broken_file, check_folder, missing_files, reason_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """What may be taken for a model. `partial`: True loads one whose files lack weights or have others, None
    where the run has no such key for it; `trust_remote_code` runs the code that a folder or hub repository
    brings; `base_model` stands for the base that an adapter names."""

    partial: bool | None = None
    trust_remote_code: bool = False
    base_model: str | None = None


def loading_of(overall) -> Loading:
    """How the model of a run is loaded, from its settings section `overall`."""
    return Loading(overall.partial_weights, overall.trust_remote_code, overall.base_model)


def load_tokenizer(name: str, loading: Loading = Loading(), model_name: str | None = None):
    """A tokenizer, fitted to the model that it is used with, by default its own."""
    place = tokenizer_place(name, loading.base_model)
    tokenizer = from_hub_or_folder(AutoTokenizer.from_pretrained, place, loading)
    rows = _embedding_rows(base_of(model_name or name, loading.base_model), loading)
    if rows:
        fit_tokenizer(tokenizer, rows)
    return tokenizer


def _embedding_rows(name: str, loading: Loading) -> int | None:
    """Rows of a model's embedding by its config; None where there is no model, but a tokenizer alone."""
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        return None
    config = from_hub_or_folder(AutoConfig.from_pretrained, name, loading)
    rows = getattr(config.get_text_config(), "vocab_size", None)
    return rows if isinstance(rows, int) and rows > 0 else None


def initial_tokenizer(overall):
    """The tokenizer of a run, from its settings section `overall`."""
    name = overall.tokenizer_name or overall.model_name
    return load_tokenizer(name, loading_of(overall), overall.model_name)


def load_model(
    name: str,
    precision: str = "fp32",
    device: str = "cpu",
    random_init: bool = False,
    seed: int = 0,
    loading: Loading = Loading(),
):
    """A causal language model in eval mode on `device`. Weights are fp32 but for `bf16_pure`; `random_init`
    draws them from `seed` after the folder's config.json. UserError when its files lack weights or have
    others; where `loading` takes it all the same, what is missing is drawn from `seed`."""
    dtype = torch.bfloat16 if precision == "bf16_pure" else torch.float32
    if random_init or loading.partial:
        torch.manual_seed(seed)
    if random_init:
        model: Any = from_hub_or_folder(_draw, name, loading, dtype=dtype)
    else:
        model = load_whole(AutoModelForCausalLM, name, loading, dtype=dtype)
    return model.to(device).eval()


def _without_unknown_pad(name: str, loading: Loading) -> dict[str, Any]:
    """The config of a model without a pad id that its embedding does not have, which no model can be built
    with; nothing where there is no such id."""
    config = from_hub_or_folder(AutoConfig.from_pretrained, name, loading)
    rows, pad = getattr(config, "vocab_size", None), getattr(config, "pad_token_id", None)
    if not isinstance(rows, int) or not isinstance(pad, int) or not 0 < rows <= pad:
        return {}
    log.warning("%s: pad_token_id %d is beyond the embedding of %d rows and left out", name, pad, rows)
    config.pad_token_id = None
    return {"config": config}


def _draw(source: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """A model of random weights after the config of a folder or hub name."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)


def load_initial(overall, local_rank: int = 0):
    """The model of a run, from its settings section `overall`, on the device of this process."""
    device = choose_device(overall.device, local_rank)
    precision = choose_precision(overall.precision, device)
    return load_model(
        overall.model_name, precision, device, overall.random_init, overall.seed, loading_of(overall)
    )


def load_whole(kind, name: str, loading: Loading = Loading(), **options) -> Any:
    """A model of an Auto class whose files hold its weights, no fewer and no others: what is missing would be
    random, and what is left over shows that the files are another model's. Tied weights, and those that the
    architecture declares absent, are not a fault. With `loading.partial` a fault is a warning, unless shapes
    differ. A folder with a LoRA adapter gives its base with the adapter merged."""
    if is_adapter(name):
        base = base_of(name, loading.base_model)
        return merge_adapter(load_whole(kind, base, loading, **options), name, base)
    options |= _without_unknown_pad(name, loading)
    model, loaded = from_hub_or_folder(
        kind.from_pretrained,
        name,
        loading,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # its own refusal names no weight
        **options,
    )
    faults, shapes = weight_faults(loaded, type(model).__name__), bool(loaded["mismatched_keys"])
    if faults and (shapes or not loading.partial):
        helps = loading.partial is False and not shapes
        raise UserError(
            f"{name}: its weight files {' and '.join(faults)}. Were they renamed, cut, or saved from another"
            " architecture?"
            + (" overall.partial_weights true loads overall.model_name all the same" if helps else "")
        )
    if faults:
        log.warning("%s: its weight files %s (overall.partial_weights)", name, " and ".join(faults))
    return model


def train_only(model, names: Collection[str] | None) -> None:
    """Freeze every parameter but the named ones; None is all."""
    for name, p in model.named_parameters():
        p.requires_grad_(names is None or name in names)


def add_lora(model, lora, seed: int = 0, only: Collection[str] | None = None):
    """The model with trainable LoRA adapters on frozen weights; it says the same as before until it is
    trained. `only`: names of parameters; adapters go to these alone. UserError when a named target cannot be
    adapted; `all-linear` leaves such layers out."""
    import peft

    torch.manual_seed(seed)
    everything = lora.targets == ("all-linear",)
    targets: str | list[str] = "all-linear" if everything else list(lora.targets)
    unfit = _layers_without_adapter(model)
    if not everything:
        _check_lora_targets(lora.targets, unfit)
    if only is not None:
        linear = _linear_layers(model)
        layers = [
            name.removesuffix(".weight")
            for name, parameter in model.named_parameters()
            if name in only and parameter.dim() == 2
        ]
        targets = [
            name
            for name in layers
            if (name in linear and name not in unfit if everything else _is_target(name, lora.targets))
        ]
        if not targets:
            raise UserError(
                f"unlearn.lora.targets: none of {', '.join(lora.targets)} is among what the method trains "
                f"({', '.join(sorted(only)[:3])}, ...)"
            )
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=list(unfit) or None,
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config).eval()
    except ValueError as error:
        raise UserError(f"unlearn.lora.targets: {error}") from None


def _linear_layers(model) -> dict[str, torch.nn.Module]:
    """Name -> module of what peft takes for a linear layer."""
    kinds = (torch.nn.Linear, Conv1D)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def _layers_without_adapter(model) -> dict[str, str]:
    """Name -> class of linear layers to whose output no update can be added, since it is not one tensor:
    routers of mixtures of experts that return scores and logits, such as Llama 4's."""
    return {
        name: type(module).__name__
        for name, module in _linear_layers(model).items()
        if isinstance(module, torch.nn.Linear) and not _maps_vectors(module)
    }


@torch.no_grad()
def _maps_vectors(layer: torch.nn.Linear) -> bool:
    """Does a layer give a vector of its output size for one of its input size? Subclasses may not."""
    if type(layer).forward is torch.nn.Linear.forward:
        return True
    try:
        output = layer(layer.weight.new_zeros(1, layer.in_features))
    except RuntimeError:  # it takes another shape
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, layer.out_features)


def _is_target(name: str, targets: Collection[str]) -> bool:
    """Does one of the targets, the last parts of module names, name this layer?"""
    return any(f".{name}".endswith(f".{target}") for target in targets)


def _check_lora_targets(targets: Collection[str], unfit: dict[str, str]) -> None:
    """UserError when a target names a layer that cannot be adapted."""
    named = [name for name in unfit if _is_target(name, targets)]
    if named:
        raise UserError(
            f"unlearn.lora.targets: {named[0]} is a {unfit[named[0]]}, whose output is not one tensor, so"
            " LoRA cannot adapt it; leave it out of the targets"
        )


def merge_lora(model):
    """The plain model with its adapters merged into the weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def reference_model(model, deepest: int | None = None):
    """(model, context) that answers as the initial model: the LoRA base with its adapters off, or a frozen
    copy. Where only outputs up to block `deepest` are asked for, the model itself with the start values of
    what is trained there put back.
    """
    if hasattr(model, "disable_adapter"):
        return model, model.disable_adapter
    if deepest is None:
        return copy.deepcopy(model).eval().requires_grad_(False), contextlib.nullcontext
    numbers = block_numbers(model)
    trained = [
        (p, p.detach().clone())
        for name, p in model.named_parameters()
        if p.requires_grad and numbers.get(name, 0) <= deepest
    ]
    return model, lambda: _put_back(trained)


@contextlib.contextmanager
def _put_back(weights: list[tuple[torch.nn.Parameter, torch.Tensor]]) -> Iterator[None]:
    """The weights with other values, for as long as the context lasts. Autocast, which knows a weight by its
    place, forgets what it has rounded on the way in and on the way out."""
    live = [(p, p.data) for p, _ in weights]
    for p, values in weights:
        p.data = values
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        for p, values in live:
            p.data = values
        torch.clear_autocast_cache()


def from_hub_or_folder(load: Callable, name: str, loading: Loading = Loading(), **options) -> Any:
    """What a library's `load` makes of a folder, or of a name on the hub. Code that comes with it is never
    run, nor is anybody asked about it, unless the settings trust it. UserError naming the file that is
    broken, or with the library's reason."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(folder)
    trust = loading.trust_remote_code
    if not folder.exists():
        offline_reason()
    try:
        return load(str(folder) if folder.exists() else name, trust_remote_code=trust, **options)
    except Exception as error:  # the libraries raise any kind over a broken file, tokenizers a bare Exception
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{name!r} brings code of its own, which is not run; overall.trust_remote_code true runs that"
                " of overall.model_name and its tokenizer, if you know it"
            ) from None
        fault = broken_file(folder) if folder.is_dir() else None
        reason = reason_of(error) if folder.exists() else hub_problem(error)
        raise UserError(
            fault or f"cannot load {name!r} as a folder or from the hub: {reason}{missing_files(folder)}"
        ) from None


def choose_device(wanted: str, local_rank: int = 0) -> str:
    """This process's GPU where there is one and it is wanted, else the CPU. (Which GPU `cuda:N` is was
    settled when the program began, by hiding the others.)"""
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"overall.device is {wanted!r} but no GPU is visible; use cpu or auto")
    return f"cuda:{local_rank}" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, device: str) -> str:
    """`auto` is fp32 weights with bf16 autocast on a GPU that has bf16, else plain fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"


def lost_update_fraction(model, lr: float) -> float:
    """Share of bf16 weights that an update of size `lr` (what AdamW makes) leaves as they are: bf16 keeps 8
    significant bits, so a step below half a unit in the last place, about |w| / 512, rounds away."""
    trained = [p.detach() for p in model.parameters() if p.dtype == torch.bfloat16 and p.requires_grad]
    counts = [((p.abs() / 512 > lr).sum(), p.numel()) for p in trained]
    total = sum(n for _, n in counts)
    return float(sum(swallowed for swallowed, _ in counts)) / total if total else 0.0


def autocast_context(device: str | torch.device, precision: str):
    """The context in which a run computes on `device`: bf16 autocast for precision bf16, else as the weights
    are. Training, references and evaluation all use it, so that their figures compare."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def model_fingerprint(model) -> str:
    """A hash of the config and of every weight's name, shape and bytes: two models share it only when they
    say the same. LoRA adapters are left out: it is the fingerprint of the base."""
    config = {
        k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")
    }
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in model.state_dict().items():
        if "lora_" in name:
            continue
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        digest.update(f"{plain}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def check_context(
    name: str, longest: int, budget: int, key: str, advice: str, loading: Loading = Loading()
) -> None:
    """UserError when a prompt of `longest` tokens and `budget` new ones together are more than what the model
    can read."""
    config = from_hub_or_folder(AutoConfig.from_pretrained, base_of(name, loading.base_model), loading)
    context = getattr(config, "max_position_embeddings", None)
    if context and longest + budget > context:
        raise UserError(
            f"{key} {budget}: with the longest prompt ({longest} tokens) that exceeds the model's context of"
            f" {context}; at most {max(0, context - longest)} fit. {advice}"
        )
