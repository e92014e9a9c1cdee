"""Every architecture of transformers with a head for texts, images or pixels, a few kilobytes or megabytes large."""

from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

HEADS = {
    "text": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "mask": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
}
NAMES = {
    "text": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "mask": modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
}
WIDTHS = (
    "hidden_size d_model n_embd dim emb_dim embed_dim embedding_size intermediate_size ffn_dim n_inner hidden_dim d_ff "
    "encoder_ffn_dim decoder_ffn_dim moe_intermediate_size word_embed_proj_dim"
).split()
LAYERS = "num_hidden_layers n_layer num_layers n_layers encoder_layers decoder_layers num_decoder_layers".split()
PAIRS = (
    "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads num_key_value_heads "
    "num_experts num_local_experts type_vocab_size"
).split()
SIZES: dict[str, int] = {
    **dict.fromkeys(WIDTHS, 16),
    **dict.fromkeys([*LAYERS, *PAIRS], 2),
    **{"vocab_size": 40, "head_dim": 8, "d_kv": 8, "max_position_embeddings": 64, "n_positions": 64},
    **{"image_size": 32, "patch_size": 8, "num_channels": 3, "pad_token_id": 0, "num_experts_per_tok": 1},
}
LARGEST = 30_000_000
"""Parameters. What stays larger by these sizes has parts with sizes of their own."""


def build(head: str, model_type: str) -> PreTrainedModel:
    """Return a small model of `model_type`; raise what transformers raises where these sizes do not suit it."""
    known: dict[str, Any] = AutoConfig.for_model(model_type).to_dict()
    sizes = {name: size for name, size in SIZES.items() if name in known and not isinstance(known[name], list | tuple)}
    if head == "mask" and "out_indices" in known:
        sizes |= {"num_hidden_layers": 4, "out_indices": [0, 1, 2, 3]}  # type: ignore[dict-item]
    config = AutoConfig.for_model(model_type, num_labels=3, **sizes)
    made: Any = HEADS[head][type(config)]
    model_class = made[0] if isinstance(made, tuple) else made
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in model_class(config).parameters())
    if size > LARGEST:
        raise MemoryError(f"{size:,} parameters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = model_class(config)
    return model
