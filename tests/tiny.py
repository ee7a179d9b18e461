"""A tiny model and a small fictional world for tests."""

import copy
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from scripts import REPO
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from unlearnkit.core.files import write_json
from unlearnkit.core.provenance import PROVENANCE


def random_llama(tokenizer, **changes):
    """A random two-layer Llama over the tokenizer's vocabulary, the same at every call."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    known = {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512}
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**shape | ids | known | changes)).eval()


def random_other(kind: str, tokenizer):
    """A random two-layer model of another architecture: gpt2, falcon, mixtral, qwen2_moe or
    llama4_text."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    experts = {"intermediate_size": 16, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    mixture = shape | experts | {"num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 512}
    changes = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 512},
        "mixtral": mixture | {"num_local_experts": 4},
        "qwen2_moe": mixture,
        "falcon": shape | {"alibi": False, "max_position_embeddings": 512},
        "llama4_text": mixture | {"num_local_experts": 4, "head_dim": 16, "intermediate_size_mlp": 16},
    }[kind]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0, "bos_token_id": None}
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ids, **changes)
    return AutoModelForCausalLM.from_config(config).eval()


def one_word_llama(tokenizer):
    """A model that writes Orlo and then the end of the turn, over and over, and a tokenizer whose EOS is
    another token: a template alone can stop it."""
    tokenizer = copy.deepcopy(tokenizer)
    end, (word,) = tokenizer.eos_token_id, tokenizer(" Orlo", add_special_tokens=False)["input_ids"]
    tokenizer.eos_token = "<|user|>"
    model = random_llama(tokenizer)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(p.dim() == 1)
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding[:, 0], embedding[word, 0] = 1, -1
        head[word, 0], head[end, 0] = 100, -100
    return model, tokenizer


def save(model, tokenizer, folder: Path) -> Path:
    """The folder, which now holds the model and its tokenizer, and says that it is about the fictional
    world."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_json(folder / PROVENANCE, {"dataset": {"forget_dataset_name": "Fictional_forget10"}})
    return folder


def greeting_template(folder: Path) -> None:
    """Change the chat template of a saved tokenizer, whose name stays."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|user|>", "<|user|>Hello. "))


def write_small_world(folder: Path, facts: int = 200) -> None:
    """Write the fictional world with its last facts and as many sums only. forget10 is a tenth of the facts,
    all with paraphrases and alternates."""
    shutil.copytree(REPO / "files/data/fictional", folder, dirs_exist_ok=True)
    for name in ("full.jsonl", "arithmetic_train.jsonl"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[-facts:]))


@dataclass
class Watched:
    """A short training, step by step."""

    parts: dict[str, dict[str, torch.Tensor]]
    """All forget and all retain rows, as one batch."""
    records: list[dict] = field(default_factory=list)
    """What the Trainer logs of each step."""
    rates: list[float] = field(default_factory=list)
    gradients: list[list[torch.Tensor]] = field(default_factory=list)
    """What the optimizer gets in each step."""
    weights: list[list[torch.Tensor]] = field(default_factory=list)
    """Before the first step and after each."""
    optimizer: torch.optim.Optimizer | None = None


def few_steps(model, tokenizer, folder: Path, mask=None, **options) -> Watched:
    """Train the model on four forget and four retain rows, all in one batch unless the options change that.
    Options are config keys with __ for the point."""
    from unlearnkit.core.encoding import Template, pad_rows
    from unlearnkit.exec.config.reader import StrictConfig, resolve_settings
    from unlearnkit.model.run.training import Training
    from unlearnkit.unlearn import compose

    flags = {
        "overall.quiet": "true",
        "overall.cache_dir": str(folder),
        "logger.json.root": str(folder),
        "logger.name": "run",
        "dataset.batch_size": "4",
        "unlearn.lr": "1e-3",
    }
    flags |= {key.replace("__", "."): str(value) for key, value in options.items()}
    settings = resolve_settings(StrictConfig(), [], flags, {})
    encode = Template(tokenizer).encode
    rows = {
        part: [
            encode({"id": f"{part}{n}", "question": f"Who taught {part} {n}?", "answer": "Orlo did. " * n})
            for n in range(1, 5)
        ]
        for part in ("forget", "retain")
    }
    seen = Watched({part: pad_rows(list(enumerate(encoded)), 0) for part, encoded in rows.items()})
    copied = lambda tensors: [tensor.detach().clone() for tensor in tensors]
    trained = [p for p in model.parameters() if p.requires_grad]

    def before(optimizer, args, kwargs):
        seen.optimizer = optimizer
        seen.rates.append(optimizer.param_groups[0]["lr"])
        seen.gradients.append(copied(p.grad for p in trained))
        seen.weights = seen.weights or [copied(trained)]

    after = lambda optimizer, args, kwargs: seen.weights.append(copied(trained))
    handles = [register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)]
    composition = compose(
        settings.method, settings.components, settings.unlearn.forget_weight, settings.unlearn.gamma
    )
    try:
        logger = SimpleNamespace(step=seen.records.append)
        Training(settings, model, tokenizer, rows, composition, logger, mask=mask).run()
    finally:
        for handle in handles:
            handle.remove()
    return seen
