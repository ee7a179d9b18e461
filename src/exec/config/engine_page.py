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

ZERO_TESTED = {
    "NPO with fine-tuning; cached reference values": ("NPO+FT", "SimNPO", "DPO"),
    "representation losses, whose passes end at a block": ("EMBED", "R2MU"),
    "LoRA": ("lora",),
    "exact second derivatives (GP, CR with mode exact; ILU)": ("GP-exact",),
    "losses on the weights themselves (L1 and other regularizers)": ("L1",),
    "step checkpoints, resumed with or without the engine": ("test_a_killed_run_resumes",),
    "optimizer state (and weights) in CPU memory": ("test_the_launchers_config_is_met",),
    "bf16 autocast over fp32 weights": ("autocast",),
}
"""Feature -> the cases of tests/unlearn/test_deepspeed.py that hold it, where they are not those of
`TESTED`."""
ELSEWHERE = {
    "step checkpoints, resumed with or without the engine": (
        "test_trainer.py",
        "test_engine_faults.py",
    ),
    "optimizer state (and weights) in CPU memory": ("not offered", "refused: untested"),
}
"""Feature of DeepSpeed's tests alone -> what holds for DDP and for FSDP2."""
UNTESTED = "untested"


def render() -> str:
    features = dict.fromkeys([*TESTED, *(refusal.feature for refusal in REFUSALS), *ZERO_TESTED])
    rows = [
        [feature, *(_cell(feature, engine) for engine in ("ddp", "fsdp2", "zero2", "zero3"))]
        for feature in features
    ]
    return table(["feature", "DDP", "FSDP2", "ZeRO-2", "ZeRO-3"], rows)


def _cell(feature: str, engine: str) -> str:
    for refusal in REFUSALS:
        if refusal.feature == feature and engine in refusal.engines:
            return f"refused: {refusal.reason}"
    if engine in ("ddp", "fsdp2"):
        if feature in ELSEWHERE:
            return ELSEWHERE[feature][engine == "fsdp2"]
        names = TESTED.get(feature, ())
    else:
        names = ZERO_TESTED.get(feature) or TESTED.get(feature, ())
    return ", ".join(f"`{name}`" for name in names) or UNTESTED
