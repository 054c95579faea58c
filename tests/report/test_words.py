"""Numbers and findings in words."""

import pytest

from rankopt.cost import Flops
from rankopt.report import words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 FLOP"),
        (64, "64 FLOP"),
        (0.5, "0.5 FLOP"),
        (999, "999 FLOP"),
        (999.7, "1.0 kFLOP"),
        (287_200_000, "287.2 MFLOP"),
        (999_960, "1.0 MFLOP"),
        (3.2e12, "3.2 TFLOP"),
        (-5_000, "-5.0 kFLOP"),
    ],
)
def test_three_digits_and_a_prefix(number: float, text: str) -> None:
    assert words.flop(number) == text


def test_the_sentence() -> None:
    before, after = Flops(0, 287_200), Flops(1_900_000, 82_300)
    assert words.sentence(before, after, 1000, 132_000, "") == (
        "287.2 -> 84.2 MFLOP per request at 1,000 candidates (-71%): 1.9 MFLOP once per request, "
        "82.3 kFLOP per candidate; state 132.0 kB."
    )


def test_far_apart_numbers_have_units_of_their_own() -> None:
    sentence = words.sentence(Flops(0, 1_000_000), Flops(0, 100), 10, 0, "")
    assert sentence.startswith("10.0 MFLOP -> 1.0 kFLOP per request at 10 candidates (-100%)")


def test_no_saving_is_not_an_arrow() -> None:
    sentence = words.sentence(Flops(0, 1000), Flops(0, 1000), 10, 32, "")
    assert sentence.startswith("no FLOPs saved: 10.0 kFLOP per request at 10 candidates: 0 FLOP once per request")


def test_a_model_without_products_is_described_by_all_of_its_work() -> None:
    sentence = words.sentence(Flops(elementwise_each=1000), Flops(5000, 10, 0, 90), 100, 64, "")
    assert sentence.startswith("100.0 -> 15.0 kFLOP per request at 100 candidates (-85%, elementwise work")


def test_unchanged_gives_the_reason() -> None:
    assert words.sentence(Flops(0, 1000), Flops(0, 1000), 10, 32, "no law saves any work in it") == (
        "unchanged: 10.0 kFLOP per request at 10 candidates; no law saves any work in it."
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((True, 1.3e-15, "float32", 0.94, 0, (1, 64)),
         "identical: float64 1.3e-15, float32 0.9x of the original's own error, same order "
         "(at 1, 64 candidates)"),
        ((False, 3e-4, "float32", 41.0, 1200, (1000,)),
         "NOT identical: float64 3.0e-04, float32 41.0x of the original's own error, 1,200 pairs swapped "
         "(at 1,000 candidates)"),
        ((False, None, "int64", None, 0, (7,)),
         "NOT identical: int64 off, where the original is exact, same order (at 7 candidates)"),
        ((True, 1e-16, "float64", 1.0, 0, (7,)), "identical: float64 1.0e-16, same order (at 7 candidates)"),
    ],
)  # fmt: skip
def test_agreement(arguments: tuple[object, ...], text: str) -> None:
    assert words.agreement(*arguments) == text


@pytest.mark.parametrize("path", ["/a/b/model.py", "b\\model.py", "model.py"])
def test_file_name(path: str) -> None:
    assert words.file_name(path) == "model.py"
