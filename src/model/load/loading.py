"""Loading of models and tokenizers from a folder or the hub, in the precision of the run."""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import EmptyTqdm, set_tqdm_hook

from ...core.encoding import fit_tokenizer
from ...core.files import UserError
from ...core.hub_access import absent_offline, hub_problem
from ...core.sharding import exchanged, is_sharded, own_values, whole
from ...core.weight_files import weight_faults
from ...core.zero import ZeroPlan, import_deepspeed, is_zero_part, loading_in_parts, start_passes
from ...unlearn.blocks import block_numbers
from ..run.progress import Phase, make_phase
from .adapters import base_of, is_adapter, merge_adapter, tokenizer_place
from .engine import resolve_engine, take_over, zero_plan
from .folder_faults import broken_file, check_folder, missing_files, reason_of
from .sharded import another_model, merge_sharded

log = logging.getLogger(__name__)

LOADING_BAR = "Loading weights"
"""Title of the bar that transformers has over the weight tensors of a model."""


@dataclass(frozen=True)
class Loading:
    """How strictly a model is loaded.

    Args:
        partial: True loads a model whose files lack weights or have others; None means False, for models
            that no key of the run allows it for.
        trust_remote_code: run the code that a folder or hub repository brings.
        base_model: base model in place of the one in an adapter's config.
    """

    partial: bool | None = None
    trust_remote_code: bool = False
    base_model: str | None = None


def loading_of(overall) -> Loading:
    """The loading options of a run's model, from its settings section `overall`."""
    return Loading(overall.partial_weights, overall.trust_remote_code, overall.base_model)


def load_tokenizer(name: str, loading: Loading = Loading(), model_name: str | None = None):
    """Load a tokenizer, fitted to the embedding of `model_name` (default: the model of the same name)."""
    place = tokenizer_place(name, loading.base_model)
    tokenizer = from_hub_or_folder(AutoTokenizer.from_pretrained, place, loading)
    rows = _embedding_rows(base_of(model_name or name, loading.base_model), loading)
    if rows:
        fit_tokenizer(tokenizer, rows)
    return tokenizer


def _embedding_rows(name: str, loading: Loading) -> int | None:
    """Number of embedding rows by the config; None for a folder with a tokenizer alone."""
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
    seed: int = 0,
    loading: Loading = Loading(),
):
    """Load a causal language model.

    Args:
        name: a model folder, an adapter folder (loaded merged into its base), or a hub name.
        precision: fp32, bf16 or bf16_pure, see `weight_dtype`.
        device: cpu or cuda:N.
        seed: seed of missing weights, where `loading` allows them.
        loading: what is accepted.

    Returns:
        The model in eval mode.

    Raises:
        UserError: the model cannot be read, or its files lack weights or have others.
    """
    if loading.partial:
        torch.manual_seed(seed)
    model = load_pretrained(AutoModelForCausalLM, name, loading, dtype=weight_dtype(precision))
    return model.to(device).eval()


def load_sharded(name: str, precision: str, loading: Loading = Loading()):
    """Load a causal language model of which each process holds a part of every weight (FSDP2); no process
    ever holds it whole. All processes must call, with a process group.

    Args:
        name: a model folder or a hub name.
        precision: see `load_model`.
        loading: what is accepted.

    Returns:
        The model in eval mode, on the device of each process.

    Raises:
        UserError: see `load_model`; or an adapter is named.
    """
    from transformers.distributed.configuration_utils import DistributedConfig

    if is_adapter(name):
        raise UserError(
            f"overall.engine fsdp2: {name} is an adapter, which is merged into whole weights alone; merge it"
            " into its base first (peft: merge_and_unload, then save_pretrained)"
        )
    config = DistributedConfig(fsdp_size=torch.distributed.get_world_size())
    dtype = weight_dtype(precision)
    model = load_pretrained(AutoModelForCausalLM, name, loading, dtype=dtype, distributed_config=config)
    if not is_sharded(model):
        raise UserError(f"overall.engine fsdp2: {name} was loaded whole; its architecture cannot be sharded")
    return model.eval()


def load_in_parts(plan: ZeroPlan, device: str, name: str, precision: str, loading: Loading = Loading()):
    """As `load_sharded`, by DeepSpeed's ZeRO-3."""
    if is_adapter(name):
        raise UserError(
            f"overall.engine zero3: {name} is an adapter, which is merged into whole weights alone; merge it"
            " into its base first (peft: merge_and_unload, then save_pretrained)"
        )
    import_deepspeed(torch.device(device).type)
    with loading_in_parts(plan):
        model = load_pretrained(AutoModelForCausalLM, name, loading, dtype=weight_dtype(precision))
    if not all(map(is_zero_part, model.parameters())):
        raise UserError(f"overall.engine zero3: {name} was loaded whole; its architecture cannot be sharded")
    start_passes(model.eval(), plan)
    return model


def random_model(
    name: str,
    precision: str = "fp32",
    device: str = "cpu",
    seed: int = 0,
    loading: Loading = Loading(),
):
    """As `load_model`, with weights drawn from `seed` by the architecture's own initialisation: only the
    config of `name` is read."""
    torch.manual_seed(seed)
    model: Any = from_hub_or_folder(_model_from_config, name, loading, dtype=weight_dtype(precision))
    return model.to(device).eval()


def weight_dtype(precision: str) -> torch.dtype:
    """The dtype of the weights, float32 except for `bf16_pure`."""
    # bf16 autocast keeps float32 master weights: with bf16 weights, small updates would be rounded away, see
    # lost_update_fraction.
    return torch.bfloat16 if precision == "bf16_pure" else torch.float32


def _without_unknown_pad(name: str, loading: Loading) -> dict[str, Any]:
    """The option `config`, with a pad id beyond the embedding removed; no option for a valid config."""
    config = from_hub_or_folder(AutoConfig.from_pretrained, name, loading)
    rows, pad = getattr(config, "vocab_size", None), getattr(config, "pad_token_id", None)
    if not isinstance(rows, int) or not isinstance(pad, int) or rows <= 0 or pad < rows:
        return {}
    # torch.nn.Embedding refuses such a padding_idx, so the model could not be built at all.
    log.warning("%s: pad_token_id %d is beyond the embedding of %d rows and left out", name, pad, rows)
    config.pad_token_id = None
    return {"config": config}


def _model_from_config(source: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)


def load_initial(overall, local_rank: int = 0, shardable: bool = False):
    """Load the initial model of a run.

    Args:
        overall: the settings section `overall`.
        local_rank: number of this process's GPU.
        shardable: whether the caller works with sharded weights too.

    Returns:
        The model in eval mode on the device of this process.

    Raises:
        UserError: see `load_model`; or a GPU is asked for and none is visible; or the engine does not fit.
    """
    with _shown_loading(overall):
        return _load_initial(overall, local_rank, shardable)


def _load_initial(overall, local_rank: int, shardable: bool):
    device = resolve_device(overall.device, local_rank)
    precision = resolve_precision(overall.precision, device)
    engine, plan = resolve_engine(overall.engine), zero_plan(overall.engine)
    if engine in ("fsdp2", "zero3"):
        if not shardable or overall.random_init:
            what = "a model drawn at random (overall.random_init)" if shardable else "this script"
            raise UserError(f"overall.engine {engine}: {what} needs whole weights in each process; use ddp")
        take_over()
        load = partial(load_in_parts, plan, device) if plan else load_sharded
        return load(overall.model_name, precision, loading_of(overall))
    load = random_model if overall.random_init else load_model
    return load(overall.model_name, precision, device, overall.seed, loading_of(overall))


def load_quantized(overall, local_rank: int = 0):
    """As `load_initial`, with the weights of linear layers in 4-bit NormalFloat blocks (QLoRA,
    arXiv:2305.14314), their scales quantised too. Embeddings, norms and the language-model head stay as they
    are. Such weights cannot be trained; adapters on them can."""
    device = resolve_device(overall.device, local_rank)
    precision = resolve_precision(overall.precision, device)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if precision == "fp32" else torch.bfloat16,
    )
    with _shown_loading(overall):
        model = load_pretrained(
            AutoModelForCausalLM,
            overall.model_name,
            loading_of(overall),
            dtype=weight_dtype(precision),
            quantization_config=config,
            device_map={"": device},
        )
    for module in model.modules():
        # On CPUs with AVX512-BF16 bitsandbytes repacks weights on the way, with scales in bfloat16: other
        # numbers than elsewhere, and an error where a width is not a multiple of 64.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


@contextlib.contextmanager
def _shown_loading(overall) -> Iterator[None]:
    """Show which model is loaded, and how many of its weight tensors are there."""
    what = "drawing the weights of" if overall.random_init else "loading"
    with make_phase(f"{what} {overall.model_name}", "weight tensors", overall.quiet) as phase:

        def hook(factory, args, kwargs):
            is_ours = kwargs.get("desc") == LOADING_BAR and args and not overall.quiet
            return _Counted(args[0], phase) if is_ours else factory(*args, **kwargs)

        before = set_tqdm_hook(hook)
        try:
            yield
        finally:
            set_tqdm_hook(before)


class _Counted(EmptyTqdm):
    """In place of a bar of transformers: counts in a phase, which suits a log too."""

    def __init__(self, items: Collection, phase: Phase):
        super().__init__(items)
        self.items, self.phase = items, phase

    def __iter__(self) -> Iterator:
        self.phase.update(0, len(self.items))
        for item in self.items:
            yield item
            self.phase.add(1)


def load_pretrained(kind, name: str, loading: Loading = Loading(), **options) -> Any:
    """Load a model whose files hold exactly its weights.

    Missing weights would be random, and surplus ones show that the files belong to another model. Tied
    weights, and those that the architecture declares absent, are not a fault.

    Args:
        kind: an Auto class of transformers.
        name: a folder, an adapter folder (merged into its base), or a hub name.
        loading: with `partial` a fault is a warning, unless shapes differ.
        options: further options of `from_pretrained`.

    Raises:
        UserError: the model cannot be read, or its files lack weights or have others.
    """
    if is_adapter(name):
        base = base_of(name, loading.base_model)
        return merge_adapter(load_pretrained(kind, base, loading, **options), name, base)
    options |= _without_unknown_pad(name, loading)
    model, loaded = from_hub_or_folder(
        kind.from_pretrained,
        name,
        loading,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # transformers' own error names no weight
        **options,
    )
    faults = weight_faults(loaded, type(model).__name__)
    other_shapes = bool(loaded["mismatched_keys"])
    if faults and (other_shapes or not loading.partial):
        # None: the model is not overall.model_name, so the key would not help.
        remedy = ""
        if loading.partial is False and not other_shapes:
            remedy = " overall.partial_weights true loads overall.model_name anyway"
        raise UserError(
            f"{name}: its weight files {' and '.join(faults)}. Were they renamed, cut, or saved from another"
            f" architecture?{remedy}"
        )
    if faults:
        log.warning("%s: its weight files %s (overall.partial_weights)", name, " and ".join(faults))
    return model


def train_only(model, names: Collection[str] | None) -> None:
    """Freeze every parameter except the named ones; None trains all. Quantised weights stay frozen."""
    for name, p in model.named_parameters():
        p.requires_grad_(p.is_floating_point() and (names is None or name in names))


def add_lora(model, lora, seed: int = 0, only: Collection[str] | None = None):
    """Put trainable LoRA adapters on a model and freeze its weights.

    Args:
        model: the loaded model. Its outputs stay the same until it is trained, since B starts at zero.
        lora: the settings section `unlearn.lora`.
        seed: seed of A.
        only: names of the parameters that the method trains; only these layers get adapters. None is all.

    Raises:
        UserError: a named target cannot be adapted, or none is trained. `all-linear` skips such layers.
    """
    import peft

    torch.manual_seed(seed)
    all_linear = lora.targets == ("all-linear",)
    targets: str | list[str] = "all-linear" if all_linear else list(lora.targets)
    unfit = _layers_without_adapter(model)
    if not all_linear:
        _check_lora_targets(lora.targets, unfit)
    if only is not None:
        # peft reads a target as the end of a module's name, so layers are listed by their full names: a
        # method that trains three blocks must not get adapters on layers of the same name in the others.
        layers = [
            name.removesuffix(".weight")
            for name, parameter in model.named_parameters()
            if name in only and parameter.dim() == 2
        ]
        if all_linear:
            linear = _linear_layers(model)
            targets = [name for name in layers if name in linear and name not in unfit]
        else:
            targets = [name for name in layers if _is_target(name, lora.targets)]
        if not targets:
            raise UserError(
                f"unlearn.lora.targets: none of {', '.join(lora.targets)} is among the parameters that the"
                f" method trains ({', '.join(sorted(only)[:3])}, ...)"
            )
    config = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=list(unfit) or None,  # peft applies it to named targets too; those were checked above
        task_type="CAUSAL_LM",
    )
    try:
        return peft.get_peft_model(model, config).eval()
    except ValueError as error:
        raise UserError(f"unlearn.lora.targets: {error}") from None


def _linear_layers(model) -> dict[str, torch.nn.Module]:
    """Name -> module of the layers that peft treats as linear."""
    kinds = (torch.nn.Linear, Conv1D)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def _layers_without_adapter(model) -> dict[str, str]:
    """Name -> class of linear layers that LoRA cannot adapt, since their output is not one tensor: routers of
    mixtures of experts that return scores and logits, such as Llama 4's."""
    return {
        name: type(module).__name__
        for name, module in _linear_layers(model).items()
        if isinstance(module, torch.nn.Linear) and not _maps_vectors(module)
    }


@torch.no_grad()
def _maps_vectors(layer: torch.nn.Linear) -> bool:
    """Whether a layer maps [1, in_features] to one tensor [1, out_features]; subclasses of Linear may not."""
    if type(layer).forward is torch.nn.Linear.forward or not layer.weight.is_floating_point():
        return True
    try:
        output = layer(layer.weight.new_zeros(1, layer.in_features))
    except RuntimeError:  # another input shape
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, layer.out_features)


def _is_target(name: str, targets: Collection[str]) -> bool:
    """Whether a module name ends with one of the targets, as peft matches them."""
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
    """Merge a model's adapters into its weights; a model without adapters is returned unchanged. On a
    quantised model, whose weights could only take a rounded update, the adapters stay in place."""
    if getattr(model, "is_loaded_in_4bit", False):
        return model.get_base_model()
    if not hasattr(model, "merge_and_unload"):
        return model
    return merge_sharded(model) if is_sharded(model) else model.merge_and_unload()


def reference_model(model, deepest: int | None = None, another: Callable[[], Any] | None = None):
    """The reference model, which computes as the initial model, called before training starts.

    Args:
        model: the model to be trained.
        deepest: number of the last block whose output is needed; None where logits are.
        another: loads the initial model once more; None copies it.

    Returns:
        (model, context): within `context()` the model computes the initial model's outputs. With LoRA it is
        the model itself with its adapters disabled; with `deepest` the model itself with the initial values
        of the trained weights up to that block; otherwise a frozen copy.
    """
    if hasattr(model, "disable_adapter"):
        return model, model.disable_adapter
    if deepest is None:
        return another_model(model, another).eval().requires_grad_(False), contextlib.nullcontext
    # RMU and its relatives train the weights of a few blocks: copies of these few tensors replace a second
    # model in memory. Parameters outside of the blocks count as block 0, since an output may depend on them.
    numbers = block_numbers(model)
    trained = [
        (p, own_values(p))
        for name, p in model.named_parameters()
        if p.requires_grad and numbers.get(name, 0) <= deepest
    ]
    return model, lambda: exchanged(model, trained)


def from_hub_or_folder(load: Callable, name: str, loading: Loading = Loading(), **options) -> Any:
    """Call a library's loader on a folder or a hub name.

    Args:
        load: `from_pretrained` of a class of transformers, or alike.
        name: a folder, or a name on the hub.
        loading: remote code is run, without a prompt, only with `trust_remote_code`.
        options: further options of `load`.

    Raises:
        UserError: naming the broken file, or with the library's reason.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_folder(folder)
    source = str(folder) if folder.exists() else name
    if not folder.exists() and (reason := absent_offline(name, "model")):
        raise UserError(f"cannot load {name!r} as a folder or from the hub: {reason}")
    try:
        return load(source, trust_remote_code=loading.trust_remote_code, **options)
    except Exception as error:  # the libraries raise any kind over a broken file, tokenizers a bare Exception
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{name!r} brings code of its own, which is not run; overall.trust_remote_code true runs that"
                " of overall.model_name and its tokenizer, if you know it"
            ) from None
        # Only now are the files read one by one: a working folder is read once.
        fault = broken_file(folder) if folder.is_dir() else None
        reason = reason_of(error) if folder.exists() else hub_problem(error)
        raise UserError(
            fault or f"cannot load {name!r} as a folder or from the hub: {reason}{missing_files(folder)}"
        ) from None


def resolve_device(wanted: str, local_rank: int = 0) -> str:
    """The GPU of this process where one is visible and wanted, otherwise the CPU."""
    # The N of `cuda:N` is not read here: exec/script.py hides all other GPUs before CUDA starts.
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"overall.device is {wanted!r} but no GPU is visible; use cpu or auto")
    return f"cuda:{local_rank}" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def resolve_precision(wanted: str, device: str) -> str:
    """Resolve `auto`: bf16 autocast over fp32 weights on a GPU with bf16, otherwise plain fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "fp32"


def lost_update_fraction(model, lr: float) -> float:
    """Share of bf16 weights that an update of size `lr`, about that of AdamW's steps, leaves unchanged."""
    trained = [p.detach() for p in model.parameters() if p.dtype == torch.bfloat16 and p.requires_grad]
    # bf16 keeps 8 significant bits: an update below half a unit in the last place, about |w| / 512, is lost.
    counts = [(whole((p.abs() / 512 > lr).sum()), p.numel()) for p in trained]
    total = sum(size for _, size in counts)
    return float(sum(lost for lost, _ in counts)) / total if total else 0.0


def autocast_context(device: str | torch.device, precision: str):
    """The autocast context of a run on `device`: bf16 for precision bf16, otherwise disabled."""
    # Training, reference model and evaluation share it: figures of other precisions do not compare.
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


PASSING = ("_name_or_path", "transformers_version", "distributed_config")
"""Entries of a config that change no output."""


def model_fingerprint(model) -> str:
    """Hash of the config and of every weight's name, shape, dtype and bytes, 16 hexadecimal digits. Adapters
    are left out: a LoRA model has the fingerprint of its base. Of a sharded model all processes must ask."""
    # A key of caches (reference values, benchmarks, evaluations) and of masks: the folder's path and the
    # release of transformers that wrote it change no output, so they are left out.
    config = {k: v for k, v in model.config.to_dict().items() if k not in PASSING}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=8)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if "lora_" in name:
            continue
        # peft's names, so that a model and its LoRA version before training share cached values.
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        values = whole(tensor).detach()
        digest.update(f"{plain}{tuple(values.shape)}{values.dtype}".encode())
        # Bytes rather than values: numpy has no bfloat16.
        flat = values.contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class TokenBudget:
    """Tokens of a generation: those of the longest prompt, the new ones, the key that sets the new ones, and
    advice for a budget beyond the model's context."""

    longest_prompt: int
    new_tokens: int
    key: str
    advice: str


def check_context(name: str, budget: TokenBudget, loading: Loading = Loading()) -> None:
    """UserError when the longest prompt and the new tokens exceed the context of the model `name`."""
    config = from_hub_or_folder(AutoConfig.from_pretrained, base_of(name, loading.base_model), loading)
    context = getattr(config, "max_position_embeddings", None)
    longest = budget.longest_prompt
    if context and longest + budget.new_tokens > context:
        raise UserError(
            f"{budget.key} {budget.new_tokens}: with the longest prompt ({longest} tokens) that exceeds the"
            f" model's context of {context}; at most {max(0, context - longest)} fit. {budget.advice}"
        )
