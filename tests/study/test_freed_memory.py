"""What is freed stays with a worker, and what is loaded is not looked through again at every trial."""

import gc
import subprocess
import sys
import weakref

import pytest

from memcontrol.study.placement import ALLOCATOR_SETTINGS, keep_freed_memory, loaded_for_good

PAGES = 16 * 2**20 // 4096
AGAIN_AND_AGAIN = """
import resource, sys
from memcontrol.study.placement import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(24):
    if turn == 4:
        before = faults()
    held = [bytearray(b"x") * 2**23 for _ in range(2)]
    del held
print(faults() - before)
"""


def faults(argument: str) -> int:
    found = subprocess.run(
        [sys.executable, "-c", AGAIN_AND_AGAIN, argument], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told")
def test_memory_that_is_freed_and_taken_again_costs_no_page_faults(monkeypatch):
    for name in ALLOCATOR_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert faults("keep") < PAGES < 10 * PAGES < faults("leave")


def test_a_setting_of_the_users_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert not keep_freed_memory()


def test_where_the_c_library_has_no_such_settings_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()


class Ring:
    """Something that only the garbage collector frees."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_loaded_is_passed_over_and_what_comes_later_is_still_freed():
    gc.unfreeze()
    with loaded_for_good():
        assert gc.get_freeze_count() > 1000
        later = weakref.ref(Ring())
        gc.collect()
        assert later() is None
    assert gc.get_freeze_count() == 0
