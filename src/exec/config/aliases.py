"""Other names of our keys: those that are read as ours, and those of other toolkits, which are answered with
ours."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ...core.registry import did_you_mean

KEY_ALIASES = {
    "unlearn.mu": "mask.mu",
    "unlearn.sophia_params.betas_low": "unlearn.optim.Sophia.beta1",
    "unlearn.sophia_params.betas_high": "unlearn.optim.Sophia.beta2",
    "unlearn.sophia_params.rho": "unlearn.optim.Sophia.rho",
}
"""Keys that files of the WAGLE family spell in another way; they are read as ours."""

RENAMED_KEYS = {
    "unlearn.parity": "unlearn.published",
    "evaluate.parity": "evaluate.convention",
}
"""Former names of our keys -> the present ones. The former ones are still read, with a warning."""

REMOVED_KEYS = {
    "traces.min_tokens": "shorter segments than 16 tokens are left out",
    "traces.top_p": "traces are greedy or sampled by temperature alone",
    "paraphrases.embedder": "it is judge.embedder now",
    **dict.fromkeys(
        (f"unlearn.{name}.direction_seed" for name in ("RMU", "R2MU-v0", "R2MU")), "its seed is 0"
    ),
}
"""Keys that are gone -> what holds now. They are passed over, with a warning, so that old files still run."""

OTHER_NAMES = {
    # Hugging Face's TrainingArguments and the trainers built on them
    "learning_rate": "unlearn.lr",
    "num_train_epochs": "unlearn.num_epochs",
    "epochs": "unlearn.num_epochs",
    "per_device_train_batch_size": "dataset.batch_size",
    "per_gpu_train_batch_size": "dataset.batch_size",
    "train_batch_size": "dataset.batch_size",
    "micro_batch_size": "dataset.batch_size",
    "per_device_eval_batch_size": "evaluate.batch_tokens",
    "eval_batch_size": "evaluate.batch_tokens",
    "grad_accum_steps": "unlearn.gradient_accumulation_steps",
    "lr_scheduler_type": "unlearn.scheduler",
    "lr_scheduler": "unlearn.scheduler",
    "warmup_steps": "unlearn.warmup_ratio",
    "warmup_epochs": "unlearn.warmup_ratio",
    "optim": "unlearn.optimizer",
    "gradient_clipping": "unlearn.max_grad_norm",
    "bf16": "overall.precision",
    "fp16": "overall.precision",
    "tf32": "overall.precision",
    "dtype": "overall.precision",
    "torch_dtype": "overall.precision",
    "mixed_precision": "overall.precision",
    "use_cpu": "overall.device",
    "no_cuda": "overall.device",
    "output_dir": "logger.json.root",
    "overwrite_output_dir": "logger.overwrite",
    "run_name": "logger.name",
    "report_to": "overall.logger",
    "data_seed": "dataset.dataset_seed",
    "resume_from_checkpoint": "unlearn.resume_path",
    # TRL and PEFT
    "max_seq_length": "dataset.max_length",
    "max_seq_len": "dataset.max_length",
    "model_name_or_path": "overall.model_name",
    "pretrained_model_name_or_path": "overall.model_name",
    "model_path": "overall.model_name",
    "model_id": "overall.model_name",
    "model": "overall.model_name",
    "tokenizer": "overall.tokenizer_name",
    "tokenizer_name_or_path": "overall.tokenizer_name",
    "dataset": "dataset.forget_dataset_name",
    "dataset_name": "dataset.forget_dataset_name",
    "use_peft": "unlearn.use_lora",
    "lora_r": "unlearn.lora.r",
    "lora_rank": "unlearn.lora.r",
    "lora_alpha": "unlearn.lora.alpha",
    "lora_dropout": "unlearn.lora.dropout",
    "lora_target_modules": "unlearn.lora.targets",
    "target_modules": "unlearn.lora.targets",
    # OpenUnlearning, and Hydra's words for a config
    "trainer": "unlearn.unlearn_method",
    "handler": "unlearn.unlearn_method",
    "retain_loss_type": "unlearn.unlearn_method",
    "method_args.alpha": "unlearn.gamma",
    "method_args.gamma": "unlearn.forget_weight",
    "method_args.beta": "unlearn.NAME.beta, where NAME is the forget objective (unlearn.NPO.beta)",
    "tokenizer_args.pretrained_model_name_or_path": "overall.tokenizer_name",
    "forget_split": "dataset.forget_dataset_name",
    "retain_split": "dataset.retain_dataset_name",
    "retain_logs_path": "evaluate.retain_results",
    "method": "unlearn.unlearn_method",
    "forget_loss": "unlearn.unlearn_method",
    "config": "config_file",
    "config_name": "config_file",
    "experiment": "config_file",
    "wandb_project": "logger.wandb.project",
}
"""The last part or parts of a key elsewhere -> what it is here. Names that are the last part of a key of
ours that means the same (`seed`, `warmup_ratio`) need no entry."""


def hint(name: str, known: Iterable[str], flag: str = "") -> str:
    """What an unknown key is called here, or its nearest keys: `"; here it is unlearn.lr"`, or empty. `flag`
    is put before every key."""
    if ours := _ours(name):
        return f"; here it is {flag}{ours}"
    keys = list(known)
    same = [key for key in keys if key.rpartition(".")[2] == name.rpartition(".")[2]]
    if not same:
        return did_you_mean(flag + name, [flag + key for key in keys])
    same.sort(key=lambda key: difflib.SequenceMatcher(None, key, name).ratio(), reverse=True)
    return f"; did you mean {' or '.join(flag + key for key in same[:3])}?"


def other_names(tree: Mapping[str, Any], path: str) -> list[str]:
    """The keys of other toolkits among the values of a nested dict, dotted."""
    found = []
    for key, value in tree.items():
        name = f"{path}.{key}"
        if isinstance(value, Mapping):
            found += other_names(value, name)
        elif _ours(name):
            found.append(name)
    return found


def _ours(name: str) -> str | None:
    """What a key of another toolkit is here; the longest end of it that is known counts."""
    parts = name.replace("-", "_").lower().split(".")
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((OTHER_NAMES[end] for end in ends if end in OTHER_NAMES), None)
