"""Small models of many kinds, with inputs, for the tests of the gradient sketch: name -> (model, inputs)."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BigBirdPegasusConfig,
    BigBirdPegasusForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DPTConfig,
    DPTForSemanticSegmentation,
    GemmaConfig,
    GemmaForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
    T5Config,
    T5ForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

Inputs = dict[str, Tensor]
_TEXT: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_labels": 3,
    "pad_token_id": 0,
}
_ROPE: dict[str, Any] = _TEXT | {"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}


def text_inputs() -> Inputs:
    ids = torch.randint(3, 40, (4, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row, length in enumerate((7, 5, 7, 3)):
        ids[row, length:], mask[row, length:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def sentence_inputs() -> Inputs:
    """Texts whose last token ends them, once, and whose padding is BART's."""
    inputs = text_inputs()
    ids, lengths = inputs["input_ids"], inputs["attention_mask"].sum(dim=1)
    ids[inputs["attention_mask"] == 0] = 1
    ids[torch.arange(len(ids)), lengths - 1] = 2
    return inputs


def image_inputs(size: int = 32) -> Inputs:
    return {"pixel_values": torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))}


def bert() -> nn.Module:
    return BertForSequenceClassification(BertConfig(**_TEXT))


def distilbert() -> nn.Module:
    return DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3)
    )


def albert() -> nn.Module:
    """One layer that is called twice."""
    return AlbertForSequenceClassification(AlbertConfig(**_TEXT, embedding_size=8))


def gpt2() -> nn.Module:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=0)
    return GPT2ForSequenceClassification(config)


def bart() -> nn.Module:
    """Two tables of positions that are called with something else; one table of tokens, three times, scaled."""
    layers = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    width = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "scale_embedding": True}
    return BartForSequenceClassification(BartConfig(vocab_size=40, num_labels=3, **width, **layers))


def opt() -> nn.Module:
    """A table of positions that is called with the attention mask."""
    size = {"hidden_size": 16, "word_embed_proj_dim": 8, "ffn_dim": 24, "num_hidden_layers": 2}
    return OPTForSequenceClassification(
        OPTConfig(vocab_size=40, num_attention_heads=2, num_labels=3, pad_token_id=0, **size)
    )


def modern_bert() -> nn.Module:
    config = ModernBertConfig(**_TEXT, attn_implementation="sdpa", reference_compile=False, cls_token_id=1)
    return ModernBertForSequenceClassification(config)


def llama() -> nn.Module:
    return LlamaForSequenceClassification(LlamaConfig(**_ROPE))


def gemma() -> nn.Module:
    """RMS norms that multiply by one plus the weight, embeddings that are scaled."""
    return GemmaForSequenceClassification(GemmaConfig(**_ROPE))


def qwen3() -> nn.Module:
    """RMS norms of every head's queries and keys."""
    return Qwen3ForSequenceClassification(Qwen3Config(**_ROPE))


def lora() -> nn.Module:
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=2, target_modules=["query", "value"], lora_dropout=0.1)
    model = get_peft_model(BertForSequenceClassification(BertConfig(**_TEXT)), config)
    assert isinstance(model, nn.Module)
    return model


def resnet() -> nn.Module:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def regnet() -> nn.Module:
    """Convolutions with groups."""
    config = RegNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4, num_labels=3)
    return RegNetForImageClassification(config)


def mobilenet() -> nn.Module:
    """Depthwise convolutions, with strides and odd padding."""
    return MobileNetV2ForImageClassification(
        MobileNetV2Config(depth_multiplier=0.1, image_size=32, num_labels=3, tf_padding=False)
    )


def convnext() -> nn.Module:
    """Layer norms with the channels first; depthwise convolutions."""
    config = ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], patch_size=4, num_labels=3)
    return ConvNextForImageClassification(config)


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            num_labels=3,
        )
    )


def dinov2() -> nn.Module:
    """Scales of whole layers, which are no module's weight."""
    config = Dinov2Config(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_labels=3
    )
    return Dinov2ForImageClassification(config)


def swin() -> nn.Module:
    """Windows in the place of examples, which are moved between layers."""
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2]}
    return SwinForImageClassification(SwinConfig(**sizes, window_size=4, num_labels=3))


def segformer() -> nn.Module:
    config = SegformerConfig(
        depths=[1, 1],
        num_encoder_blocks=2,
        hidden_sizes=[8, 16],
        num_attention_heads=[1, 2],
        sr_ratios=[2, 1],
        patch_sizes=[7, 3],
        strides=[4, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        num_labels=3,
    )
    return SegformerForSemanticSegmentation(config)


def deberta() -> nn.Module:
    """Relative positions whose table is used without its module, through layers that also see the tokens."""
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    settings = {"conv_kernel_size": 3, "conv_act": "gelu", "norm_rel_ebd": "layer_norm", "share_att_key": True}
    return DebertaV2ForSequenceClassification(DebertaV2Config(**_TEXT, **relative, **settings))


def t5() -> nn.Module:
    """Relative positions that are the same for every example; norms without a rule."""
    size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    ids = {"eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 1}
    return T5ForSequenceClassification(T5Config(**size, **ids, num_labels=3))


def mpnet() -> nn.Module:
    return MPNetForSequenceClassification(MPNetConfig(**_TEXT))


def xlnet() -> nn.Module:
    """Examples in the second dimension."""
    return XLNetForSequenceClassification(
        XLNetConfig(vocab_size=40, d_model=16, n_layer=1, n_head=2, d_inner=24, num_labels=3)
    )


def bigbird_pegasus() -> nn.Module:
    """Tables of positions that are called with a shape."""
    layers = {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "attention_type": "original_full"}
    width = {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64}
    config = BigBirdPegasusConfig(vocab_size=40, num_labels=3, **width, **layers, **ids)
    return BigBirdPegasusForSequenceClassification(config)


def swinv2() -> nn.Module:
    """Relative positions that pass through a perceptron, once for all examples."""
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2]}
    return Swinv2ForImageClassification(Swinv2Config(**sizes, window_size=4, num_labels=3))


def dpt() -> nn.Module:
    """Transposed convolutions, which have no rule."""
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    neck = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    return DPTForSemanticSegmentation(
        DPTConfig(**sizes, **neck, intermediate_size=24, num_labels=3, is_hybrid=False, use_auxiliary_head=False)
    )


_BUILDERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "bert": (bert, text_inputs),
    "distilbert": (distilbert, text_inputs),
    "albert": (albert, text_inputs),
    "gpt2": (gpt2, text_inputs),
    "bart": (bart, sentence_inputs),
    "opt": (opt, text_inputs),
    "modern_bert": (modern_bert, text_inputs),
    "llama": (llama, text_inputs),
    "gemma": (gemma, text_inputs),
    "qwen3": (qwen3, text_inputs),
    "lora": (lora, text_inputs),
    "resnet": (resnet, image_inputs),
    "regnet": (regnet, image_inputs),
    "mobilenet": (mobilenet, image_inputs),
    "convnext": (convnext, image_inputs),
    "vit": (vit, image_inputs),
    "dinov2": (dinov2, image_inputs),
    "swin": (swin, image_inputs),
    "segformer": (segformer, image_inputs),
}
NAMES = list(_BUILDERS)
_ONE_BY_ONE: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "deberta": (deberta, text_inputs),
    "t5": (t5, sentence_inputs),
    "mpnet": (mpnet, text_inputs),
    "xlnet": (xlnet, text_inputs),
    "bigbird_pegasus": (bigbird_pegasus, sentence_inputs),
    "swinv2": (swinv2, image_inputs),
    "dpt": (dpt, image_inputs),
}
ONE_BY_ONE_NAMES = list(_ONE_BY_ONE)
"""Models that a sketch cannot follow in whole batches."""


def build(name: str) -> tuple[nn.Module, Inputs]:
    """Return a model in evaluation mode whose every parameter and statistic has a random part, and inputs for it."""
    make_model, make_inputs = {**_BUILDERS, **_ONE_BY_ONE}[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_model().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for buffer_name, buffer in model.named_buffers():
                if buffer_name.endswith("running_var"):
                    buffer.uniform_(0.5, 2)
                elif buffer_name.endswith("running_mean"):
                    buffer.normal_()
    return model, make_inputs()
