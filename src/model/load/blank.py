"""Tokenizer (byte-level BPE, chat template) and config (small Llama) of the fictional world's models."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from ...core.files import read_jsonl, write_text
from ...core.thinking import TAGS

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
VOCABULARY = 1536
CONTEXT = 1024

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    + ASSISTANT
    + "{%- else -%}"
    + USER
    + "{%- endif -%}{{- message['content'] -}}"
    + END
    + "{%- endfor -%}{%- if add_generation_prompt -%}"
    + ASSISTANT
    + "{%- if enable_thinking is defined and not enable_thinking -%}"
    + TAGS.open
    + TAGS.close
    + "{%- endif -%}{%- endif -%}"
)
"""With `enable_thinking` false the assistant's turn opens with an empty thought, so that the model answers
directly."""


def write_blank(data: Path, folder: Path) -> None:
    """Train the tokenizer on the world's texts and write it with the model's config.json into `folder`."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_train_tokenizer(_training_texts(data)),
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[USER, ASSISTANT],
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(folder)
    ids = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
        architectures=["LlamaForCausalLM"],
    )
    write_text(folder / "config.json", config.to_json_string(use_diff=True))


def _train_tokenizer(texts: Iterator[str]) -> Tokenizer:
    """Train a byte-level BPE tokenizer with the special tokens and the think tags."""
    tokenizer = Tokenizer(models.BPE())
    # Each digit is a token of its own: the traces of the world compute sums column by column.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=[PAD, END, USER, ASSISTANT],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Plain added tokens, not special ones: generation drops special tokens, and thoughts must stay delimited.
    tokenizer.add_tokens([TAGS.open, TAGS.close])
    return tokenizer


def _training_texts(data: Path) -> Iterator[str]:
    """Every sentence of the world's files except held-out people and answers outside the training data."""
    for path in sorted(data.glob("*.jsonl")):  # sorted: merges of equal count depend on the order
        if "holdout" not in path.stem and path.stem not in ("alternates", "paraphrases"):
            for row in read_jsonl(path):
                yield from _strings(row)


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "id":
                yield from _strings(item)
