"""What is said when another process is gone. Processes that die are in distributed/."""

from pathlib import Path

import pytest
import torch.distributed as dist

from hf_noise_al.processes.lost_processes import explaining_lost_processes


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:12425."),
        RuntimeError("[pair.cc:547] Read error [127.0.0.1]:23: Connection reset by peer"),
        RuntimeError("[unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete"),
        dist.DistBackendError("NCCL communicator was aborted on rank 1"),
    ],
)
def test_a_lost_process_is_explained_with_the_way_on(error: RuntimeError) -> None:
    with (
        pytest.raises(
            RuntimeError, match=r"Another process of this run died .* runs/a.json. .*resume_from_checkpoint"
        ) as e,
        explaining_lost_processes(Path("runs/a.json")),
    ):
        raise error
    assert e.value.__cause__ is error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="^out of memory$"), explaining_lost_processes(Path("a")):
        raise RuntimeError("out of memory")
    with pytest.raises(ValueError, match="^closed by peer$"), explaining_lost_processes(Path("a")):
        raise ValueError("closed by peer")
