"""Peak memory of a training by axis.

A step goes through three heights: the end of its forward passes (all activations, no gradient yet), the end
of the first backward half (the gradients of what was differentiated first beside the activations of the
rest), and its end (all gradients). Weights, optimizer state, caches and a reference model are there
throughout. Evaluation comes before or after the training, when there are neither gradients nor optimizer
state.

On a CPU the height is that of anonymous memory. Weights that are read as they are from a mapped file, and not
written to, are pages of that file: the system takes them back where it needs room."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

FLOAT = 4
LOGITS_IN_FORWARD = 3
"""Tensors [N, V] of a loss at its height: what the head gives, the part of it that is scored, log p."""


@dataclass(frozen=True)
class PassMemory:
    """Bytes that one pass of a micro-batch keeps, and what its loss takes for a moment.

    Args:
        saved: activations.
        logits: one tensor of the logits of its scored tokens, float32.
        on_heap: activations in tensors that the C library takes from its heap.
    """

    saved: int = 0
    logits: int = 0
    on_heap: int = 0


@dataclass(frozen=True)
class MemoryAxes:
    """Bytes by axis.

    Args:
        weights: the model, adapters included.
        gradients: one set of gradients of what is trained.
        gradient_sets: sets beside the first that a combiner, a wrapper or an extra gradient keeps.
        optimizer: its state.
        reference: a second model, or copies of weights.
        caches: kept logits and hidden states, in the host's memory.
        passes: of one micro-batch, in the order in which they are computed.
        together: is there one backward pass for all of them?
        block: activations of one block that gradient checkpointing computes again.
        embedding: the largest trained tensor, of which a second gradient exists for a moment.
        accumulates: do gradients wait while the next micro-batch runs forward?
        evaluation: scoring and generation, without the weights.
        mapped: the part of the weights that stays in mapped files.
        merged: the part of it that merging the adapters writes to, at the end.
        small_updates: are only small tensors trained, which leave holes on the heap?
        updating: what the optimizer computes with for a moment.
        comparison: the change of the largest tensor, when the weights are compared at the end.
    """

    weights: int
    gradients: int = 0
    gradient_sets: int = 0
    optimizer: int = 0
    reference: int = 0
    caches: int = 0
    passes: tuple[PassMemory, ...] = ()
    together: bool = True
    block: int = 0
    embedding: int = 0
    accumulates: bool = False
    evaluation: int = 0
    mapped: int = 0
    merged: int = 0
    small_updates: bool = False
    updating: int = 0
    comparison: int = 0

    @property
    def activations(self) -> int:
        """Activations that exist at one time."""
        sizes = [one.saved for one in self.passes]
        return (sum(sizes) if self.together else max(sizes, default=0)) + self.block

    @property
    def logits(self) -> int:
        """Logits that exist at one time: one tensor of each pass, and what the largest loss takes besides."""
        sizes = [one.logits for one in self.passes]
        kept = sum(sizes) if self.together else max(sizes, default=0)
        return kept + (LOGITS_IN_FORWARD - 1) * max(sizes, default=0)

    @property
    def holes(self) -> int:
        """Freed memory on a CPU that nothing else takes: gradients and optimizer state of adapters lie
        between the places of activations, which are then too short for the activations of the next pass.
        Gradients of whole weights fill such places."""
        sizes = [one.on_heap for one in self.passes] if self.small_updates else []
        return sum(sizes) if self.together else max(sizes, default=0)

    @property
    def throughout(self) -> int:
        """What is there in every moment of the training, caches left out."""
        return self.weights + self.optimizer + self.reference

    @property
    def training_sum(self) -> int:
        """Height of the training where freed memory is not given back: an allocator of the C library keeps
        the gradients' space while activations are made, and the activations' while gradients are. The largest
        tensors are no part of its heap: they come and go."""
        kept = self.gradients * (1 + self.gradient_sets) + self.activations + self.logits + self.holes
        return self.throughout + kept + max(self.embedding, self.updating)

    @property
    def training(self) -> int:
        """Height of the training on a GPU, whose allocator gives freed memory to whatever comes next."""
        kept = self.gradients * (1 + self.gradient_sets)
        forward = self.activations + self.logits + (kept if self.accumulates or not self.together else 0)
        # The pass computed last is differentiated first: its activations are gone, the others' are not.
        waiting = sum(one.saved + one.logits for one in self.passes[:-1]) if self.together else 0
        middle = kept + waiting + self.block
        return self.throughout + max(forward, middle, kept + self.embedding)

    def peak(self, on_gpu: bool) -> int:
        """Height of the run on its device, mapped files left out. Caches lie in the host's memory, which is
        the device of a CPU run."""
        if on_gpu:
            return max(self.training, self.weights + self.evaluation)
        training = max(self.training, self.training_sum) + self.caches
        end = self.weights + self.merged + self.evaluation + self.comparison
        return max(training, end) - self.mapped

    def sharded(self, processes: int) -> "MemoryAxes":
        """The share of each of several processes of FSDP2: weights, gradients, optimizer state and reference
        are cut into shards, activations are not."""
        sizes = ("weights", "gradients", "optimizer", "reference", "mapped")
        return replace(self, **{name: getattr(self, name) // processes for name in sizes})

    def parts(self) -> Mapping[str, int]:
        """Axis -> bytes, for a table."""
        return {
            "weights": self.weights - self.mapped,
            "gradients": self.gradients * (1 + self.gradient_sets),
            "optimizer": self.optimizer,
            "activations": self.activations,
            "logits": self.logits,
            "holes on the heap": self.holes,
            "temporaries of the optimizer": self.updating,
            "reference model": self.reference,
            "caches (host)": self.caches,
            "evaluation (not at the same time)": self.evaluation,
            "merging (not at the same time)": self.merged,
            "comparison (not at the same time)": self.comparison,
        }


@dataclass(frozen=True)
class Trick:
    """A change of settings that saves memory.

    Args:
        name: keys and values to set, as on the command line.
        keys: section -> key -> value.
        processes: shards of FSDP2; 1 is none.
    """

    name: str
    keys: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    processes: int = 1


CHECKPOINTING = {"gradient_checkpointing": True}
LORA = {"use_lora": True}
EIGHT_BITS = {"optimizer": "AdamW8bit"}
NF4 = {"unlearn": LORA | {"save_adapter": "only"}, "lora": {"quantize": "nf4"}}

TRICKS = (
    Trick("gradient checkpointing", {"unlearn": CHECKPOINTING}),
    Trick("8-bit AdamW", {"unlearn": EIGHT_BITS}),
    Trick("8-bit AdamW + checkpointing", {"unlearn": EIGHT_BITS | CHECKPOINTING}),
    Trick("LoRA", {"unlearn": LORA}),
    Trick("LoRA + checkpointing", {"unlearn": LORA | CHECKPOINTING}),
    Trick("NF4 + LoRA", NF4),
    Trick("NF4 + LoRA + checkpointing", NF4 | {"unlearn": NF4["unlearn"] | CHECKPOINTING}),
    *(Trick(f"FSDP2 over {count} processes", processes=count) for count in (2, 4, 8)),
    *(Trick(f"FSDP2 over {count} + checkpointing", {"unlearn": CHECKPOINTING}, count) for count in (2, 4, 8)),
)
"""What may make a run fit, from the least change on."""
