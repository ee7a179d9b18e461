"""Table of docs/launchers.md: what was tested with which engine, and what is refused."""

from ...core.markdown import table
from .rules.engine_rules import REFUSALS

MARKS = ("<!-- engines: written by src/exec/make_docs.py -->", "<!-- end of engines -->")

TESTED = {
    "NPO with fine-tuning; cached reference values": ("NPO+FT",),
    "KL to a frozen reference model": ("NPO+KL",),
    "representation losses, whose passes end at a block": ("EMBED", "R2MU"),
    "GAO, signs by row and by window": ("GAO", "GAO-window"),
    "combiners": ("pcgrad", "gru", "blur", "sago", "ngdiff"),
    "masks; frozen weights are the same to the bit": ("mask", "gru-mask"),
    "LoRA": ("lora", "lora-gru"),
    "flatness: SAM, RS, GP by differences": ("SAM", "RS", "GP"),
    "weight averaging": ("WA",),
    "Sophia": ("Sophia",),
    "gradient checkpointing": ("checkpointing",),
    "accumulation with a short last window": ("2x2", "1x4"),
    "evaluation: likelihoods, generated texts": ("measured",),
    "evaluation while training, KL budget": ("evaluated",),
}
"""Feature -> the cases of tests/unlearn/test_engines.py that hold it, each with DDP and with FSDP2."""

DEEPSPEED, UNTESTED = "refused", "tested in one process; in two untested"


def render() -> str:
    rows = [
        [feature, *[", ".join(f"`{name}`" for name in names)] * 2, DEEPSPEED]
        for feature, names in TESTED.items()
    ]
    rows += [[refusal.feature, UNTESTED, f"refused: {refusal.reason}", DEEPSPEED] for refusal in REFUSALS]
    return table(["feature", "two processes, DDP", "two processes, FSDP2", "DeepSpeed"], rows)
