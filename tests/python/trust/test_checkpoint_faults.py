"""A save under faults from outside. FOVEA_FULL=1: every system call, and 1,000 states of a power failure."""
import os

import pytest

import checkpoint_faults as faults

FULL = os.environ.get("FOVEA_FULL") == "1"


@pytest.fixture(scope="module")
def begun():
    if not faults.PROBE.exists():
        pytest.skip(f"{faults.PROBE} is not built")
    if (problem := faults.problem_to_trace()):
        pytest.skip(f"strace cannot trace here: {problem}")
    begun = faults.Begun()
    yield begun
    begun.close()


def test_a_save_that_is_killed_at_any_system_call_leaves_the_old_or_the_new_checkpoint(begun):
    kills, problems = faults.kill_at_every_call(begun, most=0 if FULL else 25)
    assert not problems, problems[:5]
    assert kills >= (200 if FULL else 25)


def test_a_disk_that_refuses_is_exit_code_3_and_the_old_checkpoint(begun):
    count, problems = faults.refuse_every_write(begun, most=0 if FULL else 18)
    assert not problems, problems[:5]
    assert count >= (100 if FULL else 18)


def test_whatever_a_power_failure_leaves_the_old_or_the_new_checkpoint_is_whole(begun):
    states, problems = faults.power_failures(begun, 1000 if FULL else 60)
    assert not problems, problems[:5]
    assert states == (1000 if FULL else 60)


def test_the_states_of_a_power_failure_would_show_a_missing_flush(begun):
    """The same enumeration with the calls of fsync left out must find bad states: else it could not find any."""
    trace = begun.trace
    begun.trace = lambda: [call for call in trace() if call[0] != "fsync"]
    try:
        _, problems = faults.power_failures(begun, 40)
    finally:
        begun.trace = trace
    assert problems
