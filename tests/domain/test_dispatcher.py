"""A declaration of guarantees is valid from the moment it exists."""

from typing import Any

import pytest

from eventpact.domain.dispatcher import Delivery, Guarantees, Ordering

DECLARED: dict[str, Any] = {
    "blocks_caller": True,
    "retries": 0,
    "delivery": Delivery.AT_MOST_ONCE,
    "ordering": Ordering.FIFO,
}


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("blocks_caller", "yes", TypeError, "blocks_caller is 'yes'; it must be True or False"),
        ("blocks_caller", 1, TypeError, "blocks_caller is 1; it must be True or False"),
        ("retries", -1, ValueError, "retries is -1; it must be a whole number from 0"),
        ("retries", 1.5, TypeError, "retries is 1.5; it must be a whole number from 0"),
        ("retries", True, TypeError, "retries is True; it must be a whole number from 0"),
        ("retries", None, TypeError, "retries is None; it must be a whole number from 0"),
        (
            "delivery",
            "at_most_once",
            TypeError,
            "delivery is 'at_most_once'; it must be Delivery.AT_MOST_ONCE or Delivery.AT_LEAST_ONCE",
        ),
        ("ordering", "fifo", TypeError, "ordering is 'fifo'; it must be Ordering.NONE or Ordering.FIFO"),
    ],
)
def test_a_guarantee_of_a_wrong_type_is_refused(field: str, value: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as refused:
        Guarantees(**(DECLARED | {field: value}))
    assert str(refused.value) == f"Guarantees: {says}"


def test_guarantees_come_back_equal_from_a_report() -> None:
    declared = Guarantees(**DECLARED)
    assert Guarantees.from_dict(declared.to_dict()) == declared
