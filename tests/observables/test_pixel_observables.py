"""The map of a segmentation: one row of one width for images of any size, means over equal parts of the image."""

import pytest
import torch
from torch import Tensor, nn

from hf_noise_al.acquisition.uncertainty import entropy
from hf_noise_al.observables.parts import mean_over_parts
from hf_noise_al.observables.pixels import GRID, segmentation_map


class Given(nn.Module):
    """Returns the logits that it was made of."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self) -> Tensor:
        return self.logits


def random_logits(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", [(16, 16), (32, 48), (160, 16)])
def test_a_cell_is_the_mean_of_its_pixels(size: tuple[int, int]) -> None:
    logits = random_logits(2, 3, *size)
    rows = segmentation_map(Given(logits), {})
    cells = nn.functional.avg_pool2d(logits.softmax(1), (size[0] // GRID, size[1] // GRID))
    torch.testing.assert_close(rows, cells.flatten(1))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 17)])
def test_sizes_that_cells_do_not_divide_keep_the_mean_of_the_image(size: tuple[int, int]) -> None:
    logits = random_logits(2, 3, *size)
    rows = segmentation_map(Given(logits), {})
    assert rows.shape == (2, 3 * GRID * GRID)
    torch.testing.assert_close(rows.view(2, 3, -1).mean(2), logits.softmax(1).mean((2, 3)))


def test_a_larger_copy_of_an_image_has_the_same_row() -> None:
    logits = random_logits(1, 4, 20, 12)
    larger = logits.repeat_interleave(3, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(segmentation_map(Given(larger), {}), segmentation_map(Given(logits), {}))


def test_uncertainty_is_the_mean_over_pixels() -> None:
    logits = random_logits(2, 3, 5, 7)
    found = mean_over_parts(segmentation_map, entropy)(Given(logits), {})
    expected = entropy(logits.softmax(1).movedim(1, -1).reshape(-1, 3)).view(2, -1).mean(1, keepdim=True)
    torch.testing.assert_close(found, expected)


def test_logits_that_are_no_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(batch, classes, height, width\), found \(2, 3\)\. Use a model"):
        segmentation_map(Given(torch.zeros(2, 3)), {})
