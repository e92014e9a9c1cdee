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
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
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
    ViTConfig,
    ViTForImageClassification,
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


def build(name: str) -> tuple[nn.Module, Inputs]:
    """Return a model in evaluation mode whose every parameter and statistic has a random part, and inputs for it."""
    make_model, make_inputs = _BUILDERS[name]
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
