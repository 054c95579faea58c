"""In-vehicle coupons: would this driver, in this situation, take this coupon?

Wang et al.: A Bayesian Framework for Learning Rule Sets for Interpretable Classification. JMLR 2017. The
survey is not shipped with rankopt: it is "in-vehicle coupon recommendation" of the UCI Machine Learning
Repository.

    label      Y: the coupon was accepted
    context    the driver and the trip
    target     the coupon, when it expires and where the place lies
    split      random, stratified by label: 80 % train, 20 % test
"""

import csv
import gzip
import os
from pathlib import Path

from sklearn.model_selection import train_test_split

from rankopt.zoo.dataset import Dataset, Schedule, encode_dataset
from rankopt.zoo.errors import ZooError

LABEL = "Y"
TARGET = (
    "coupon",
    "expiration",
    "toCoupon_GEQ5min",
    "toCoupon_GEQ15min",
    "toCoupon_GEQ25min",
    "direction_same",
    "direction_opp",
)
CONTEXT = (
    "destination",
    "passanger",
    "weather",
    "temperature",
    "time",
    "gender",
    "age",
    "maritalStatus",
    "has_children",
    "education",
    "occupation",
    "income",
    "car",
    "Bar",
    "CoffeeHouse",
    "CarryAway",
    "RestaurantLessThan20",
    "Restaurant20To50",
)
TEST_FRACTION = 0.2
SCHEDULE = Schedule(batch_size=256, epochs=40, patience=4)


def load(path: Path | None = None) -> Dataset:
    """The data set; a missing answer is a value of its own.

    `path` is the CSV file, gzipped or not; without it, `$RANKOPT_DATA/invehicle_coupon/coupon.csv.gz`.

    Raises:
        ZooError: there is no such file, or it has other columns.
    """
    rows = read_rows(path or default_path())
    labels = [int(row[LABEL]) for row in rows]
    train, test = train_test_split(range(len(rows)), test_size=TEST_FRACTION, random_state=0, stratify=labels)
    order = [*train, *test]
    columns = {name: [(rows[i][name],) for i in order] for name in rows[0] if name != LABEL}
    return encode_dataset(
        "coupon",
        columns,
        [labels[i] for i in order],
        target=TARGET,
        train_rows=len(train),
        schedule=SCHEDULE,
    )


def default_path() -> Path:
    """Where the environment says that the file lies.

    Raises:
        ZooError: the environment does not say.
    """
    folder = os.environ.get("RANKOPT_DATA")
    if not folder:
        raise ZooError(
            "expected the path of the coupon data, found neither an argument nor the variable RANKOPT_DATA.\n"
            "  fix: download it from the UCI Machine Learning Repository and pass its path, or put it at\n"
            "  $RANKOPT_DATA/invehicle_coupon/coupon.csv.gz"
        )
    return Path(folder) / "invehicle_coupon" / "coupon.csv.gz"


def read_rows(path: Path) -> list[dict[str, str]]:
    """The file as one dictionary per row.

    Raises:
        ZooError: there is no such file, or it has other columns.
    """
    if not path.is_file():
        raise ZooError(
            f"expected the coupon data at {path}, found no file.\n"
            "  fix: download it from the UCI Machine Learning Repository and pass its path"
        )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = set(rows[0]) if rows else set()
    if found != {*CONTEXT, *TARGET, LABEL}:
        difference = sorted(found ^ {*CONTEXT, *TARGET, LABEL})
        raise ZooError(f"{path}: expected the 26 columns of the coupon survey, these differ: {difference}")
    return rows
