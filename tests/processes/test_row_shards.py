"""Shards on one process: what a process knows of its own; several processes are in distributed/test_shards.py."""

import pytest
import torch
from torch import Tensor

from hf_noise_al.processes.row_shards import Shard
from hf_noise_al.selection.checks import check_finite
from hf_noise_al.selection.k_center import k_center_greedy


def whole(size: int) -> Shard:
    return Shard(torch.arange(size), size)


def test_one_process_that_holds_every_row_chooses_as_without_a_shard() -> None:
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert k_center_greedy(rows, 12, shard=whole(40)).tolist() == k_center_greedy(rows, 12).tolist()
    found = k_center_greedy(rows, 12, rows[:3], 7, whole(40)).tolist()
    assert found == k_center_greedy(rows, 12, rows[:3], 7).tolist()


def test_a_shard_knows_where_its_candidates_are() -> None:
    shard = Shard(torch.tensor([2, 5, 6]), 9)
    assert [shard.position(number) for number in range(9)] == [None, None, 0, None, None, 1, 2, None, None]
    assert Shard(torch.zeros(0, dtype=torch.long), 9).position(0) is None


def test_gathered_numbers_are_exact() -> None:
    values = torch.tensor([2.0**53 - 1, 1e-300, -torch.inf], dtype=torch.float64)
    assert torch.equal(whole(1).gather(values), values[None])


def test_numbers_of_all_candidates_are_gathered_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = Shard(torch.tensor([0, 3]), 4), torch.tensor([0.0, 1 / 3, 1e-30, 0.0]).double()
    monkeypatch.setattr(Shard, "gather", lambda self, values: torch.stack([values, theirs]))
    found = mine.gather_rows(torch.tensor([0.1, 7.0]))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.tensor([0.1, 1 / 3, 1e-30, 7.0]))


@pytest.mark.parametrize("indices", [[1, 0, 2], [0, 1], [0, 1, 1], [0, 1, 3], [-1, 0, 1]])
def test_indices_that_do_not_fit_the_rows_are_refused(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="Cannot use the shard of process 0. Its indices must be as many as its rows"):
        k_center_greedy(torch.ones(3, 2), 1, shard=Shard(torch.tensor(indices), 3))


def test_candidates_that_no_process_holds_are_missed() -> None:
    with pytest.raises(
        ValueError, match="The processes hold 3 rows of 4 candidates, which must be each candidate once"
    ):
        k_center_greedy(torch.ones(3, 2), 1, shard=Shard(torch.arange(3), 4))


def test_a_row_that_is_not_finite_is_named_by_its_number() -> None:
    rows = torch.ones(4, 2)
    rows[2, 1] = rows[3, 0] = torch.nan
    with pytest.raises(ValueError, match=r"row 7 holds NaN or infinity \(2 of 9 rows do\)"):
        check_finite(rows, Shard(torch.tensor([0, 2, 7, 8]), 9))


@pytest.mark.parametrize("rows", [torch.zeros(0, 2), torch.zeros(0, 0)])
def test_no_candidates_at_all_are_refused_as_without_a_shard(rows: Tensor) -> None:
    with pytest.raises(ValueError, match="Cannot query 1 of 0 unlabeled examples"):
        k_center_greedy(rows, 1, shard=whole(0))
