"""Tiny language models of real architectures, and a tokenizer made of the words of a few sentences."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SENTENCES = ("There is an effusion.", "There is no nodule.", "The heart is large. No effusion is seen.")

SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,  # of the usual 0.02, so narrow a network says the same whatever it is given
}


SPECIAL: dict[str, tuple[str | None, str]] = {"llama": ("<s>", "</s>"), "qwen": (None, "<|endoftext|>")}
"""Begin and end of text; Qwen's has no begin."""


def tokenizer(texts: Sequence[str] = SENTENCES, kind: str = "llama") -> PreTrainedTokenizerFast:
    """A byte-level BPE of these texts, as of Llama 3 and Qwen."""
    of = Tokenizer(BPE())
    of.pre_tokenizer, of.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    begin, end = SPECIAL[kind]
    special = [end, *([] if begin is None else [begin])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    of.train_from_iterator(texts, BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=of, bos_token=begin, eos_token=end)


def write(folder: Path, kind: str = "llama", texts: Sequence[str] = SENTENCES, seed: int = 0, **changes) -> Path:
    """Writes a model with random weights, and its tokenizer; returns the folder."""
    of = tokenizer(texts, kind)
    config, network = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    torch.manual_seed(seed)
    ids = {"vocab_size": len(of), "bos_token_id": of.bos_token_id, "eos_token_id": of.eos_token_id}
    network(config(**{**SIZE, **ids, **changes})).save_pretrained(folder)
    of.save_pretrained(folder)
    return folder
