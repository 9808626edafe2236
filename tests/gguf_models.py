"""Tiny models with random weights, written in milliseconds: real to llama.cpp, small enough for thousands of steps.

All weights are F32, so results can be compared tightly. All share one vocabulary: the 256 bytes, a few merges, and the
control tokens of ChatML.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

CONTEXT = 512
WINDOW = 8  # of the model that has one
WIDTH = 64
BLOCKS = 2

_HEADS = 4
_STATE = 16  # of the recurrent layers, as the next three
_CONV = 4
_INNER = 2 * WIDTH
_DT_RANK = 4

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MERGES = ("h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "a n", "an d", "i n", "Ġ a", "s t", "u s", "us e", "use r")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def write_llama(path: Path, *, seed: int = 0) -> Path:
    """A transformer with two blocks."""
    model = _Model(path, "llama", seed)
    model.writer.add_head_count(_HEADS)
    model.writer.add_head_count_kv(_HEADS // 2)
    model.writer.add_rope_freq_base(10_000.0)
    model.writer.add_rope_dimension_count(WIDTH // _HEADS)
    for block in range(BLOCKS):
        model.attention(f"blk.{block}.")
        model.feed_forward(f"blk.{block}.")
    return model.write()


def write_sliding(path: Path, *, seed: int = 0) -> Path:
    """A Gemma 2 of two blocks, the first of which sees the last few tokens only."""
    model = _Model(path, "gemma2", seed)
    model.writer.add_head_count(_HEADS)
    model.writer.add_head_count_kv(_HEADS // 2)
    model.writer.add_key_length(WIDTH // _HEADS)
    model.writer.add_value_length(WIDTH // _HEADS)
    model.writer.add_sliding_window(WINDOW)
    model.writer.add_attn_logit_softcapping(50.0)
    model.writer.add_final_logit_softcapping(30.0)
    for block in range(BLOCKS):
        model.attention(f"blk.{block}.")
        model.ones(f"blk.{block}.post_attention_norm.weight", WIDTH)
        model.feed_forward(f"blk.{block}.")
        model.ones(f"blk.{block}.post_ffw_norm.weight", WIDTH)
    return model.write()


def write_mamba(path: Path, *, seed: int = 0) -> Path:
    """A recurrent model with two blocks, whose memory is a state that cannot be cut."""
    model = _Model(path, "mamba", seed)
    model.writer.add_head_count(0)
    model.recurrent_sizes()
    for block in range(BLOCKS):
        model.recurrent(f"blk.{block}.")
    return model.write()


def write_hybrid(path: Path, *, seed: int = 0) -> Path:
    """A Jamba of two blocks: one recurrent, one with attention."""
    model = _Model(path, "jamba", seed)
    model.writer.add_head_count(_HEADS)
    model.writer.add_head_count_kv([0, _HEADS // 2])
    model.recurrent_sizes()
    model.recurrent("blk.0.", norms=True)
    model.feed_forward("blk.0.")
    model.attention("blk.1.")
    model.feed_forward("blk.1.")
    return model.write()


class _Model:
    """A file in the making: what all architectures share, and the parts they are put together from."""

    def __init__(self, path: Path, architecture: str, seed: int) -> None:
        self.path = path
        self.writer = gguf.GGUFWriter(path, architecture)
        self._random = np.random.default_rng(seed)
        writer = self.writer
        writer.add_name(f"tiny {architecture}")
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(BLOCKS)
        writer.add_feed_forward_length(0 if architecture == "mamba" else 2 * WIDTH)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        vocabulary = [*_byte_characters(), *(merge.replace(" ", "") for merge in _MERGES), *CONTROLS]
        kinds = [gguf.TokenType.NORMAL] * (len(vocabulary) - len(CONTROLS)) + [gguf.TokenType.CONTROL] * len(CONTROLS)
        writer.add_vocab_size(len(vocabulary))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(vocabulary)
        writer.add_token_types(kinds)
        writer.add_token_merges(_MERGES)
        writer.add_bos_token_id(vocabulary.index("<|endoftext|>"))
        writer.add_eos_token_id(vocabulary.index("<|im_end|>"))
        writer.add_eot_token_id(vocabulary.index("<|im_end|>"))
        writer.add_add_bos_token(False)
        writer.add_chat_template(CHAT_TEMPLATE)
        self.ones("output_norm.weight", WIDTH)
        # A normed state has length sqrt(WIDTH), so this makes logits with a standard deviation of 2: clear preferences,
        # no certainty.
        scale = 2 / WIDTH**0.5
        if architecture == "gemma2":  # has one matrix for both ends
            self.noise("token_embd.weight", len(vocabulary), WIDTH, scale=scale)
        else:
            self.noise("token_embd.weight", len(vocabulary), WIDTH, scale=1.0)
            self.noise("output.weight", len(vocabulary), WIDTH, scale=scale)

    def ones(self, name: str, size: int) -> None:
        self.writer.add_tensor(name, np.ones(size, np.float32))

    def noise(self, name: str, *shape: int, scale: float | None = None) -> None:
        scale = shape[-1] ** -0.5 if scale is None else scale
        self.writer.add_tensor(name, (scale * self._random.standard_normal(shape)).astype(np.float32))

    def attention(self, block: str) -> None:
        self.ones(block + "attn_norm.weight", WIDTH)
        # Keys and queries somewhat larger than usual: attention that looks at some tokens more than at others.
        self.noise(block + "attn_q.weight", WIDTH, WIDTH, scale=0.2)
        self.noise(block + "attn_k.weight", WIDTH // 2, WIDTH, scale=0.2)
        self.noise(block + "attn_v.weight", WIDTH // 2, WIDTH)
        self.noise(block + "attn_output.weight", WIDTH, WIDTH, scale=0.2)

    def feed_forward(self, block: str) -> None:
        self.ones(block + "ffn_norm.weight", WIDTH)
        self.noise(block + "ffn_gate.weight", 2 * WIDTH, WIDTH)
        self.noise(block + "ffn_up.weight", 2 * WIDTH, WIDTH)
        self.noise(block + "ffn_down.weight", WIDTH, 2 * WIDTH)

    def recurrent_sizes(self) -> None:
        self.writer.add_ssm_conv_kernel(_CONV)
        self.writer.add_ssm_inner_size(_INNER)
        self.writer.add_ssm_state_size(_STATE)
        self.writer.add_ssm_time_step_rank(_DT_RANK)

    def recurrent(self, block: str, *, norms: bool = False) -> None:
        self.ones(block + "attn_norm.weight", WIDTH)
        self.noise(block + "ssm_in.weight", 2 * _INNER, WIDTH)
        self.noise(block + "ssm_conv1d.weight", _INNER, _CONV, scale=0.5)
        self.noise(block + "ssm_conv1d.bias", _INNER, scale=0.1)
        self.noise(block + "ssm_x.weight", _DT_RANK + 2 * _STATE, _INNER)
        self.noise(block + "ssm_dt.weight", _INNER, _DT_RANK)
        self.noise(block + "ssm_dt.bias", _INNER, scale=0.1)
        # How fast the state fades: between a few tokens and a few dozen.
        fading = -np.exp(self._random.uniform(-3, 0, (_INNER, _STATE)))
        self.writer.add_tensor(block + "ssm_a", fading.astype(np.float32))
        self.ones(block + "ssm_d", _INNER)
        self.noise(block + "ssm_out.weight", WIDTH, _INNER)
        if norms:
            self.ones(block + "ssm_dt_norm.weight", _DT_RANK)
            self.ones(block + "ssm_b_norm.weight", _STATE)
            self.ones(block + "ssm_c_norm.weight", _STATE)

    def write(self) -> Path:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


def _byte_characters() -> list[str]:
    """The character that stands for each byte in GPT-2's vocabulary: itself where printable, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
