"""Names to objects: what is found, what passes through, and what the message of a wrong name says."""

import pytest

from fishnet.errors import UsageError, UserError
from fishnet.lookup import lookup, unknown_name

TABLE = {"relu": abs, "leaky_relu": round, "gelu": pow}


def test_a_name_gives_the_object_of_the_table() -> None:
    assert lookup(TABLE, "relu", "activation") is abs


def test_a_callable_passes_through_even_when_it_is_not_in_the_table() -> None:
    def mine(x: float) -> float:
        return x

    assert lookup(TABLE, mine, "activation") is mine


def test_an_unknown_name_is_repeated_with_the_valid_ones_and_the_nearest() -> None:
    with pytest.raises(UsageError) as error:
        lookup(TABLE, "leakyrelu", "activation")
    assert (
        str(error.value)
        == "unknown activation 'leakyrelu': valid are relu, leaky_relu, gelu; did you mean 'leaky_relu'?"
    )


def test_without_a_near_match_none_is_offered() -> None:
    assert str(unknown_name("norm", "zzz", ["batch", "layer"])) == "unknown norm 'zzz': valid are batch, layer"


def test_a_name_of_an_earlier_version_is_refused_with_the_one_it_has_now() -> None:
    names = ["weight", "weight_standardized"]
    said = "norm: 'weight_standardised' is now spelled 'weight_standardized'"
    assert str(unknown_name("norm", "weight_standardised", names)) == said
    assert str(unknown_name("norm", "weight_standardised", ["batch"])).startswith("unknown norm 'weight_standardised'")


@pytest.mark.parametrize("name", [3, None, 2.5])
def test_what_is_no_name_at_all_is_refused_in_the_same_words(name: object) -> None:
    with pytest.raises(UsageError, match=f"unknown activation '{name}'"):
        lookup(TABLE, name, "activation")


def test_exit_codes_tell_a_wrong_request_from_a_wrong_world() -> None:
    assert (UserError.exit_code, UsageError.exit_code) == (1, 2)
    assert issubclass(UsageError, UserError)
    assert issubclass(UsageError, ValueError)
