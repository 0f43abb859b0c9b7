from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.state.budget import BudgetPolicy, RetryBudget

SHARE_ONLY = BudgetPolicy(percent=20.0, min_per_second=0.0)


def test_calls_pay_for_a_fifth_of_their_number() -> None:
    budget = RetryBudget()
    for _ in range(10):
        budget.credit(SHARE_ONLY, 0.0)
    assert [budget.withdraw(SHARE_ONLY, 0.0) for _ in range(3)] == [True, True, False]


def test_a_quiet_client_may_retry_ten_times_a_second() -> None:
    budget = RetryBudget()
    allowed = sum(budget.withdraw(BudgetPolicy(), 0.0) for _ in range(1000))
    assert allowed == 100  # ten a second for the ten seconds of the window


def test_what_was_refused_is_counted() -> None:
    budget = RetryBudget()
    budget.withdraw(SHARE_ONLY, 0.0)
    assert budget.refused == 1


def test_credit_expires_with_the_window() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.credit(SHARE_ONLY, 0.0)
    assert budget.balance(SHARE_ONLY, 9.9) == 20.0
    assert budget.balance(SHARE_ONLY, 10.0) == 0.0


def test_withdrawals_expire_with_the_window() -> None:
    policy = BudgetPolicy(percent=0.0, min_per_second=0.1)
    budget = RetryBudget()
    assert budget.withdraw(policy, 0.0)
    assert not budget.withdraw(policy, 9.9)
    assert budget.withdraw(policy, 10.0)


def test_a_new_length_of_the_window_begins_it_afresh() -> None:
    budget = RetryBudget()
    for _ in range(10):
        budget.credit(SHARE_ONLY, 0.0)
    assert budget.balance(SHARE_ONLY._replace(window=20.0), 0.0) == 0.0


def test_a_call_that_began_before_the_last_withdrawal_forgives_none() -> None:
    policy = BudgetPolicy(percent=0.0, min_per_second=0.1)
    budget = RetryBudget()
    assert budget.withdraw(policy, 5.1)
    budget.credit(policy, 4.9)
    assert not budget.withdraw(policy, 5.2)


@given(st.lists(st.tuples(st.sampled_from(["credit", "withdraw"]), st.floats(0, 3, allow_nan=False)), max_size=100))
def test_the_balance_is_never_negative_and_no_more_is_spent_than_paid_for(steps: list[tuple[str, float]]) -> None:
    policy = BudgetPolicy(percent=50.0, min_per_second=0.5, window=10.0)
    budget = RetryBudget()
    now = 0.0
    paid_at: list[int] = []
    spent: list[int] = []
    for step, wait in steps:
        now += wait
        if step == "credit":
            budget.credit(policy, now)
            paid_at.append(int(now))
        elif budget.withdraw(policy, now):
            spent.append(int(now))
            paid = sum(at > int(now) - 10 for at in paid_at) * 0.5 + 5.0
            assert sum(at > int(now) - 10 for at in spent) <= paid
        assert budget.balance(policy, now) >= 0.0
