"""Threads that share programs: none is compiled twice, and nobody waits while there is other work."""

import threading
import time
from collections.abc import Callable

import pytest

from research.sweep.train.pool import Pool, Work

Compiled = Callable[[], None] | None
WITHIN = 300.0  # seconds for a thread to come


def never() -> None:
    pytest.fail("nothing failed")


def test_a_program_is_compiled_by_one_thread_while_others_take_other_programs() -> None:
    pool, done = Pool(3), list[str]()
    compiling = dict.fromkeys("ab", 0)
    other_began = threading.Event()

    def work(name: str, program: str) -> Work:
        def go(lane: int, compiled: Compiled) -> None:
            assert (compiled is not None) == (program not in ready)
            if compiled is not None:
                compiling[program] += 1
                if program == "a":
                    assert other_began.wait(WITHIN)  # another program is begun though others of this one come first
                else:
                    other_began.set()
                ready.add(program)
                compiled()
            done.append(name)

        return go

    ready: set[str] = set()
    for name in ("a1", "a2", "a3", "b1", "b2"):
        pool.put(name[0], work(name, name[0]))
    pool.run(never)
    assert sorted(done) == ["a1", "a2", "a3", "b1", "b2"]
    assert compiling == {"a": 1, "b": 1}


def test_members_of_a_compiled_program_are_trained_at_the_same_time() -> None:
    pool, together = Pool(2), threading.Barrier(2, timeout=WITHIN)

    def first(lane: int, compiled: Compiled) -> None:
        assert compiled is not None
        compiled()
        together.wait()

    pool.put("a", first)
    pool.put("a", lambda *_: together.wait())
    pool.run(never)


def test_every_device_compiles_for_itself() -> None:
    """A thread whose device has no program yet compiles, also where another device has it."""
    pool, lanes = Pool(2, lanes=2), set[int]()
    together = threading.Barrier(2, timeout=WITHIN)

    def work(lane: int, compiled: Compiled) -> None:
        together.wait()  # both before either is compiled
        lanes.add(lane)

    pool.put("a", work)
    pool.put("a", work)
    pool.run(never)
    assert lanes == {0, 1}


def test_work_may_put_more_while_threads_wait() -> None:
    pool, done = Pool(3), list[int]()

    def work(number: int) -> Work:
        def go(lane: int, compiled: Compiled) -> None:
            done.append(number)
            if number < 5:
                pool.put("a", work(number + 1))

        return go

    pool.put("a", work(0))
    pool.run(never)
    assert done == list(range(6))


def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    pool, stopped, done = Pool(2), threading.Event(), list[str]()

    def fails(lane: int, compiled: Compiled) -> None:
        raise ArithmeticError("the first")

    def ends(lane: int, compiled: Compiled) -> None:
        assert stopped.wait(WITHIN)
        raise KeyboardInterrupt

    pool.put("a", fails)
    pool.put("b", ends)
    pool.put("c", lambda *_: done.append("c"))
    with pytest.raises((ArithmeticError, KeyboardInterrupt), match="the first"):
        pool.run(stopped.set)
    assert pool.fewer() is False


def test_after_a_lack_of_memory_less_is_done_at_the_same_time() -> None:
    pool, most, lock = Pool(3), 0, threading.Lock()
    together, now = threading.Barrier(3, timeout=WITHIN), 0

    def first(lane: int, compiled: Compiled) -> None:
        assert compiled is not None
        compiled()
        together.wait()
        pool.fewer()

    def later(lane: int, compiled: Compiled) -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)  # others could begin meanwhile
        with lock:
            now -= 1

    for program in "abc":
        pool.put(program, first)
    for _ in range(20):
        pool.put("d", later)
    pool.run(never)
    assert pool._most == 1
    assert most == 1
