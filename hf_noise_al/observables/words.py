"""What is looked at where a model answers for every word of a sentence: one row per sentence, of one width for all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from ..processes.generators import named_generator
from ..refusals import Refusal
from .base import WORD_STARTS, model_outputs

NUM_SIGNS = 128
_NUM_IDENTITIES = 8191  # a prime: what leaves the same remainder counts as the same word


class WordProbabilities:
    """Class probabilities of every word, read at its first token, folded to rows of one width: (B, 128 * C).

    The deviation of a sentence must be the mean over its words. A mean of the probabilities would let opposite
    movements of two words cancel; probabilities side by side would compare the third word of a sentence with the third
    word of another, and be as wide as the longest sentence of the batch. So each word's probabilities are multiplied
    with 128 random signs that belong to the word, and the products are added up, over the square root of the number
    of words. On average over signs

    - the squared length of a deviation is the mean over words of their squared deviations: nothing cancels, and long
      sentences are not favored;
    - the inner product of two sentences is that of the words that both have: they are alike where the same words move
      alike, wherever these stand.

    Its relative error is about ``sqrt(2 / 128)``, less than that of 30 perturbations. The word is known by its first
    token and by how many words of the sentence began with that token before. The signs are fixed: the same for every
    model, seed, process and device.

    Which tokens begin a word is said by ``inputs["word_starts"]``; without it every token of ``attention_mask`` is
    looked at. Padding, special tokens, further tokens of a word and other rows of the batch change nothing.
    """

    def __call__(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return one row per sentence: (B, 128 * C)."""
        probabilities, words = self.parts(model, inputs)
        signs = _signs(words.device)[_identities(inputs["input_ids"], words)].to(probabilities.dtype)
        weights = words / words.sum(dim=1, keepdim=True).clamp(min=1).to(signs.dtype).sqrt()
        with torch.autocast(words.device.type, enabled=False):  # rounding would be larger than deviations
            folded = torch.einsum("btm,btc->bmc", signs * weights[..., None], probabilities)
        return folded.flatten(1)

    def parts(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return class probabilities at every token, (B, T, C), and where words begin, (B, T).

        Raises:
            ValueError: the model does not return logits for each token.
        """
        logits = model_outputs(model, inputs)
        tokens = inputs["input_ids"]
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise Refusal(
                f"Probabilities of words need logits of shape (batch, tokens, classes) for {tuple(tokens.shape)} "
                f"tokens, found {tuple(logits.shape)}. Use a model for token classification."
            )
        if WORD_STARTS in inputs:
            words = inputs[WORD_STARTS] >= 0
        else:
            words = inputs.get("attention_mask", torch.ones_like(tokens)) > 0
        return logits.softmax(dim=-1), words


word_probabilities = WordProbabilities()


def _identities(tokens: Tensor, words: Tensor) -> Tensor:
    """Return a number for each word, the same for a token that begins a word for the n-th time: (B, T)."""
    earlier = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril(-1)
    same = (tokens[:, :, None] == tokens[:, None, :]) & words[:, None, :] & earlier
    return (tokens * 31 + same.sum(dim=2) * 1009) % _NUM_IDENTITIES


@lru_cache(maxsize=8)
def _signs(device: torch.device) -> Tensor:
    """Return the random signs of every identity: (8191, 128)."""
    generator = named_generator(0, "signs of words")
    signs = torch.randint(0, 2, (_NUM_IDENTITIES, NUM_SIGNS), generator=generator)
    return (2.0 * signs - 1).div_(NUM_SIGNS**0.5).to(device)
