"""The pool of requests: results in their places, and a failure that leaves nothing running."""

import numpy as np
import pytest

from crossmodal.encoders.runtime.requests import Requests


class Request:
    """Doubles what it is given once it is waited for; refuses negative numbers."""

    def __init__(self, log):
        self.log, self.array = log, None

    def start_async(self, inputs):
        assert self.array is None, "started while it still runs"
        (self.array,) = inputs
        self.log.append("start")

    def wait(self):
        array, self.array = self.array, None
        self.log.append("done")
        if array is not None and (array < 0).any():
            raise RuntimeError("negative")
        self.result = None if array is None else 2 * array

    def get_output_tensor(self, _):
        return type("Tensor", (), {"data": self.result})


class Compiled:
    def __init__(self):
        self.log = []

    def get_property(self, _):
        return 2

    def create_infer_request(self):
        return Request(self.log)


def pieces(numbers, out):
    return (([numbers[i : i + 3]], out[i : i + 3]) for i in range(0, len(numbers), 3))


def test_every_result_comes_to_its_own_rows_whatever_runs_beside_it():
    compiled = Compiled()
    requests = Requests(compiled)
    for count in (0, 1, 3, 50):
        numbers, out = np.arange(count, dtype=np.float32)[:, None], np.empty((count, 1), np.float32)
        requests.run(pieces(numbers, out))
        np.testing.assert_array_equal(out, 2 * numbers)


def test_more_than_one_runs_at_a_time_and_no_more_than_there_are():
    compiled = Compiled()
    numbers, out = np.zeros((60, 1), np.float32), np.empty((60, 1), np.float32)
    Requests(compiled).run(pieces(numbers, out))
    running = np.cumsum([1 if entry == "start" else -1 for entry in compiled.log])
    assert running.max() == 4
    assert running[-1] == 0


def test_after_a_failure_nothing_runs_and_all_can_be_used_again():
    compiled = Compiled()
    requests = Requests(compiled)
    numbers, out = np.ones((30, 1), np.float32), np.empty((30, 1), np.float32)
    numbers[16] = -1
    with pytest.raises(RuntimeError, match="negative"):
        requests.run(pieces(numbers, out))
    assert compiled.log.count("start") <= compiled.log.count("done")
    requests.run(pieces(np.abs(numbers), out))
    np.testing.assert_array_equal(out, 2.0)
