"""How many rows of a streamed data set are on a device at a time."""

from research.data.examples import Dataset
from research.data.mapped import Mapped
from research.inputs import Budget

BLOCK_BYTES = 2**24  # of the rows of a block; at least one batch
IN_FLIGHT = 2  # blocks on the device: the one that it works on, and the next


def batches_of_block(row_bytes: int, batch: int, count: int) -> int:
    """How many of `count` batches make a block: the most that fit, shared out evenly among the blocks."""
    most = max(1, BLOCK_BYTES // (row_bytes * batch))
    return -(-count // -(-count // most))


def bytes_in_flight(dataset: Dataset, budget: Budget) -> int:
    """Bytes of streamed rows that are in memory at a time: blocks on the device, and one on its way."""
    x = dataset.compact.x
    assert isinstance(x, Mapped)
    batches = batches_of_block(x.row_bytes, budget.step_rows, budget.steps_per_epoch)
    return (IN_FLIGHT + 1) * batches * budget.step_rows * x.row_bytes
