"""The pause before a dead program is started again."""

from crun.supervisor.backoff import Backoff


def test_the_first_restart_is_immediate_and_the_pauses_grow_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.delay_s(lived_s=0.1) for _ in range(8)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_half_a_minute_of_health_starts_over() -> None:
    backoff = Backoff()
    for _ in range(6):
        backoff.delay_s(lived_s=0.1)
    assert backoff.delay_s(lived_s=30.0) == 0.0


def test_a_program_killed_every_few_seconds_is_always_back_at_once() -> None:
    backoff = Backoff()
    assert {backoff.delay_s(lived_s=5.5) for _ in range(50)} == {0.0}


def test_years_of_dying_do_not_overflow() -> None:
    backoff = Backoff(deaths=1_000_000)
    assert backoff.delay_s(lived_s=0.0) == backoff.max_s
