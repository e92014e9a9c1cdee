"""Every architecture of transformers with a head for texts, images or pixels, a few kilobytes or megabytes large."""

from collections.abc import Container
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel
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
WIDTHS = "hidden_size d_model dim embed_dim n_embd hidden_dim embedding_size word_embed_proj_dim emb_dim".split()
INNER = "intermediate_size ffn_dim d_inner d_ff n_inner ffn_hidden_size dim_feedforward mlp_dim".split()
OTHERS = {
    **{"vocab_size": 40, "image_size": 32, "head_dim": 8, "max_position_embeddings": 32, "feature_size": 16},
    **{"num_experts": 4, "n_routed_experts": 4, "num_local_experts": 4, "d_latents": 16, "num_latents": 4},
}
SMALL = {**dict.fromkeys([*WIDTHS, *INNER], 16), **OTHERS}
"""The most that a number of a configuration is, where its name is one of these or ends with one."""
FOUR = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
BY_HAND: dict[str, dict[str, Any]] = {
    "bit": {**FOUR, "embedding_size": 8, "num_groups": 4},
    "convnext": FOUR,
    "convnextv2": FOUR,
    "beit": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    "cvt": {"embed_dim": [8, 8, 16], "num_heads": [1, 1, 2], "depth": [1, 2, 3]},
    "donut-swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [3, 6]},
    "dpt": {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "backbone_out_indices": [0, 0, 1, 1]},
    "efficientnet": {"width_coefficient": 0.2, "depth_coefficient": 0.2, "hidden_dim": 16},
    "esm": {"vocab_size": 40, "pad_token_id": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "hgnet_v2": {
        **{"stem_channels": [3, 8, 8], "hidden_sizes": [8, 8, 16, 16], "stage_in_channels": [8, 8, 16, 16]},
        **{"stage_mid_channels": [8, 8, 8, 8], "stage_out_channels": [8, 16, 16, 16], "stage_numb_of_layers": [1] * 4},
        "stage_num_blocks": [1, 1, 1, 1],
    },
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "levit": {"hidden_sizes": [8, 8, 16], "key_dim": [4, 4, 4], "num_attention_heads": [1, 1, 2], "depths": [1, 1, 1]},
    "mobilenet_v1": {"depth_multiplier": 0.2},
    "mobilenet_v2": {"depth_multiplier": 0.2},
    "mobilevit": {"hidden_sizes": [8, 8, 8], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "num_attention_heads": 2},
    "mobilevitv2": {"width_multiplier": 0.25, "base_attn_unit_dims": [16, 16, 16], "n_attn_blocks": [1, 1, 1]},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "poolformer": FOUR,
    "pvt": {**FOUR, "num_attention_heads": [1, 1, 2, 2]},
    "pvt_v2": {**FOUR, "num_attention_heads": [1, 1, 2, 2]},
    "reformer": {"axial_pos_embds": False, "hidden_size": 16},
    "regnet": {**FOUR, "embedding_size": 8, "groups_width": 8},
    "resnet": {**FOUR, "embedding_size": 8},
    "segformer": {**FOUR, "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 8},
    "swin": {"embed_dim": 12, "depths": [1, 1], "num_heads": [3, 6], "window_size": 4},
    "swiftformer": {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16]},
    "swinv2": {"embed_dim": 12, "depths": [1, 1], "num_heads": [3, 6], "window_size": 4},
    "textnet": {"hidden_sizes": [8, 8, 8, 16, 16], "stem_out_channels": 8},
    "tipsv2_dpt": {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8},
    "zamba": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid", "mamba", "hybrid"]},
    "zamba2": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "upernet": {"hidden_size": 8, "auxiliary_channels": 8, "auxiliary_in_channels": 16},
}


def build(head: str, model_type: str, seed: int = 0) -> PreTrainedModel:
    """Return a small model of `model_type` with every number drawn anew, those of buffers and norms, too.

    Raises:
        Exception: what transformers raises where the sizes do not suit the model.
    """
    config_class: Any = CONFIG_MAPPING[model_type]
    by_hand = BY_HAND.get(model_type, {})
    config = config_class(**{**_sizes(config_class(), by_hand), **by_hand})
    if model_type == "upernet":
        stages = config.backbone_config.out_features
        config.backbone_config = CONFIG_MAPPING["resnet"](**BY_HAND["resnet"], out_features=stages)
    found: Any = HEADS[head][config_class]
    model_class = found[0] if isinstance(found, tuple) else found
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = model_class(config)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name not in (model._keys_to_ignore_on_save or ()):
                tensor.normal_()
            elif name.endswith("num_batches_tracked"):
                tensor.fill_(seed)
    return model


def _sizes(config: PretrainedConfig, by_hand: Container[str] = ()) -> dict[str, Any]:
    """Return the fields of a configuration that can be smaller, and how small."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        if name in by_hand or name.startswith("_"):
            continue
        if isinstance(value, PretrainedConfig):
            found[name] = type(value)(**_sizes(value)).to_dict()
        elif isinstance(value, int) and not isinstance(value, bool) and _small(name, value) != value:
            found[name] = _small(name, value)
    return found


def _small(name: str, value: int) -> int:
    if name.endswith("token_id"):
        return min(value, 3)
    if "layers" in name or "heads" in name or name in ("n_layer", "n_head", "depth"):
        return min(value, 2)
    return min([value, *(most for end, most in SMALL.items() if name == end or name.endswith(f"_{end}"))])
