"""Presets of the components' own switches: what a published code base computes where ours differs by default.

A preset is weaker than anything a file or flag says. It changes no hyper-parameter but those that code has
written into it: the rest is in the configs. Not reproduced: WAGLE's convex mixture for GA+KL and its
alignment of random labels, PDU's multiplier moving with every micro-batch (OpenUnlearning), JensUn's target
of several tokens at once, decay of weights that a mask freezes (WAGLE), RMU's masked mean with each row's sum
divided by every row's length (OpenUnlearning: equal to ours where all rows have as many labels)."""

from typing import Any

STEERED = {"positions": "all", "direction": "uniform"}

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "none": {},
    "wagle": {
        "unlearn.NPO": {"reduction": "batch_mean"},
        "unlearn.KL": {"form": "seed_ce"},
        "unlearn.retain.KL": {"form": "seed_ce"},
        "unlearn.L1": {"scope": "all"},
        "unlearn.optim.Sophia": {"hessian": "none", "batch_tokens": 5120},
    },
    "soul": {
        "unlearn.NPO": {"reduction": "batch_mean"},
        "unlearn.KL": {"form": "seed_ce"},
        "unlearn.retain.KL": {"form": "seed_ce"},
        "unlearn.optim.Sophia": {"hessian": "squared_grad", "momentum_updates": 2, "batch_tokens": 5120},
    },
    "simnpo": {"unlearn.SimNPO": {"margin_form": "inside"}},
    "simnpo_wmdp": {
        "unlearn.SimNPO": {"reduction": "batch_mean"},
        "unlearn.NPO": {"reduction": "batch_mean"},
    },
    "smooth": {"unlearn.NPO": {"reduction": "batch_mean"}},
    "muse": {
        "unlearn.NPO": {"reduction": "raw_logits"},
        "unlearn.SimNPO": {"reduction": "raw_logits"},
        "unlearn.retain.KL": {"form": "raw_logits"},
    },
    "open_unlearning": {
        "unlearn.SimNPO": {"margin_form": "inside"},
        "unlearn.RMU": {"positions": "labels", "reduction": "rows", "direction": "uniform"},
        "unlearn.retain.EMBED": {"positions": "labels", "reduction": "rows"},
        "unlearn.retain.KL": {"form": "all"},
        "unlearn.UNDIAL": {"positions": "all"},
        "unlearn.PDU": {"positions": "unshifted"},
    },
    "tofu": {"unlearn.CL": {"batch": "concat"}, "unlearn.retain.KL": {"form": "all"}},
    "closer_look": {"unlearn.ME": {"form": "uniform_model"}, "unlearn.retain.KL": {"form": "all"}},
    "flat": {"unlearn.FLAT": {"positions": "all"}},
    "r2mu": {
        "unlearn.RMU": STEERED,
        "unlearn.R2MU-v0": STEERED | {"trace_positions": "all"},
        "unlearn.R2MU": STEERED | {"trace_positions": "all"},
        "unlearn.retain.EMBED": {"positions": "all"},
        "unlearn.CoT": {"positions": "all"},
        "unlearn.RTP": {"over": "forget", "positions": "all"},
        "dataset": {"trace_context": False, "cot_context": False},
    },
    "sago": {"unlearn.combine.pcgrad": {"constant": 1e-10}},
    "gao_verbatim": {
        "unlearn.NPO": {"reduction": "batch_mean", "beta": 1.0},
        "unlearn.GAO": {
            "positions": "all",
            "pad_to": 512,
            "choice": "shortest",
            "K": 6,
            "tau": 0.1,
            "rho": 0.5,
            "clip": 1.0,
        },
    },
}
"""`unlearn.published` -> config section -> key -> value."""
