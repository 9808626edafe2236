"""Write a trained network and its tokens as a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from network import EPSILON, ROPE_BASE, Network
from tokenizers import Tokenizer
from vocabulary import CHAT_TEMPLATE, CONTROLS

FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16}


def write_gguf(path: Path, network: Network, tokenizer: Tokenizer, kind: Literal["f32", "f16"] | str) -> None:  # noqa: PYI051
    """Write everything that llama.cpp needs.

    Args:
        path: The file.
        network: The weights.
        tokenizer: The tokens.
        kind: How matrices are stored: "f32", or "f16", which halves the file. Vectors are F32 always.
    """
    shape = network.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("fallible")
    writer.add_description(
        "The model of the lab of correction_graphs: it has flaws on purpose, and is of no other use."
    )
    writer.add_license("MIT")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    _add_tokens(writer, tokenizer)
    for name, weight in network.state_dict().items():
        values = weight.detach().numpy().astype(np.float16 if kind == "f16" and weight.dim() > 1 else np.float32)
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokens(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    kinds = [gguf.TokenType.CONTROL if token in CONTROLS else gguf.TokenType.NORMAL for token in tokens]
    end = tokens.index("<|end|>")
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(end)
    writer.add_pad_token_id(tokens.index("<|pad|>"))
    writer.add_add_bos_token(False)  # noqa: FBT003
    writer.add_chat_template(CHAT_TEMPLATE)
