"""One launch in a folder at a time."""

import pytest
from filelock import Timeout

from memcontrol.errors import RunError
from memcontrol.study.launching import sole_launch


def test_a_second_launch_in_a_folder_is_refused_until_the_first_has_ended(folder):
    with (
        sole_launch(folder, "search"),
        pytest.raises(RunError, match=r"another audit is writing to .*: wait for it, or use another --out$"),
        sole_launch(folder, "audit"),
    ):
        pass
    with sole_launch(folder, "audit"):
        pass


def test_another_lock_that_is_not_had_in_time_is_no_second_launch(folder):
    with pytest.raises(Timeout), sole_launch(folder, "search"):
        raise Timeout("claim.lock")
    with sole_launch(folder, "search"):
        pass
