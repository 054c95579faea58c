"""Where rows come from, and how text becomes ids."""

import gzip
from pathlib import Path

import pytest
import torch

from rankopt.zoo import Field, Schema
from rankopt.zoo.data import coupon, movietweetings
from rankopt.zoo.dataset import Dataset, Schedule, Vocabulary, encode_dataset
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import PADDING, UNKNOWN

COUPON = Path(__file__).parents[3] / "shared" / "data" / "invehicle_coupon" / "coupon.csv.gz"


@pytest.fixture(scope="module")
def tweets() -> Dataset:
    return movietweetings.load()


def test_a_field_has_exactly_one_role() -> None:
    fields = (Field("user", 3), Field("item", 3))
    with pytest.raises(ValueError, match="exactly one role"):
        Schema(fields, context=("user",), target=())
    with pytest.raises(ValueError, match="exactly one role"):
        Schema(fields, context=("user", "item"), target=("item",))


def test_vocabulary_knows_what_it_saw_twice() -> None:
    vocabulary = Vocabulary.fit(["b", "a", "b", "c", "a", "a"])
    assert vocabulary.ids == {"a": 2, "b": 3}
    assert vocabulary.size == 4
    column = [("a",), ("c",), ("never",), ("b",)]
    assert vocabulary.encode(column, 1).tolist() == [2, UNKNOWN, UNKNOWN, 3]
    several = [("b", "a"), (), ("a", "never")]
    assert vocabulary.encode(several, 3).tolist() == [
        [3, 2, PADDING],
        [PADDING] * 3,
        [2, UNKNOWN, PADDING],
    ]


def test_vocabulary_comes_from_the_training_rows_alone() -> None:
    columns = {"item": [("x",), ("x",), ("y",), ("y",), ("y",)], "user": [("u",)] * 5}
    data = encode_dataset("made up", columns, [1, 0, 1, 0, 1], target=["item"], train_rows=3, schedule=Schedule())
    assert data.schema == Schema((Field("item", 3), Field("user", 3)), ("user",), ("item",))
    assert data.train.features["item"].tolist() == [2, 2, UNKNOWN]
    assert data.test.features["item"].tolist() == [UNKNOWN, UNKNOWN]
    assert data.test.labels.tolist() == [0.0, 1.0]


def test_an_ablation_sees_one_side(tweets: Dataset) -> None:
    context, target = tweets.only("context"), tweets.only("target")
    assert tuple(context.train.features) == ("user_id", "hour", "weekday") == context.schema.context
    assert tuple(target.test.features) == ("movie_id", "year", "genres") == target.schema.target
    assert context.schema.target == target.schema.context == ()
    assert torch.equal(context.test.labels, tweets.test.labels)


def test_movietweetings_is_split_by_time(tweets: Dataset) -> None:
    assert (len(tweets.train), len(tweets.test)) == (80_000, 20_000)
    labels = torch.cat([tweets.train.labels, tweets.test.labels])
    assert labels.mean().item() == pytest.approx(0.505, abs=5e-4)
    # Three of four test rows have a user from training, some of them seen there only once.
    known = (tweets.test.features["user_id"] != UNKNOWN).float().mean()
    assert 0.65 < known.item() < 0.75


def test_movietweetings_ids_fit_their_fields(tweets: Dataset) -> None:
    for field in tweets.schema.fields:
        for rows in (tweets.train, tweets.test):
            ids = rows.features[field.name]
            assert ids.dtype == torch.int64
            assert ids.shape[1:] == ((field.length,) if field.is_multi_valued else ())
            assert ids.min() >= (PADDING if field.is_multi_valued else UNKNOWN)
            assert ids.max() < field.vocabulary


def test_one_movietweetings_row_by_hand() -> None:
    assert movietweetings.parse_rating("7::0075314::9::1362096000") == (1362096000, 7, "0075314", 9)
    assert movietweetings.parse_movie("0075314::Taxi Driver (1976)::Crime|Drama") == (
        "0075314",
        ("1976", ("Crime", "Drama")),
    )
    assert movietweetings.parse_movie("1::No Genre (2013)::") == ("1", ("2013", ()))
    assert movietweetings.hour_and_weekday(1362096000) == (0, 4)  # Friday, 2013-03-01, midnight


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="found none"):
        movietweetings.load(tmp_path)
    (tmp_path / "ratings.dat.gz").write_bytes(gzip.compress(b"1::2::3::4\n"))
    with pytest.raises(ZooError, match="sha256"):
        movietweetings.load(tmp_path)


def test_coupon_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANKOPT_DATA", raising=False)
    with pytest.raises(ZooError, match="RANKOPT_DATA"):
        coupon.load()
    monkeypatch.setenv("RANKOPT_DATA", str(tmp_path))
    with pytest.raises(ZooError, match=r"invehicle_coupon.*found no file"):
        coupon.load()


def test_coupon_refuses_other_columns(tmp_path: Path) -> None:
    file = tmp_path / "coupon.csv"
    file.write_text("destination,Y\nHome,1\n")
    with pytest.raises(ZooError, match="passanger"):
        coupon.load(file)


def test_coupon_reads_made_up_rows(tmp_path: Path) -> None:
    names = [*coupon.CONTEXT[:3], *coupon.TARGET, *coupon.CONTEXT[3:], coupon.LABEL]
    lines = [",".join([str(row % 3)] * 25 + [str(row % 2)]) for row in range(30)]
    file = tmp_path / "coupon.csv"
    file.write_text("\n".join([",".join(names), *lines]) + "\n")
    data = coupon.load(file)
    assert (len(data.train), len(data.test)) == (24, 6)
    assert data.test.labels.sum() == 3
    assert [field.name for field in data.schema.fields] == names[:-1]


@pytest.mark.skipif(not COUPON.exists(), reason="the coupon survey is not part of the repository")
def test_coupon_has_its_published_size() -> None:
    data = coupon.load(COUPON)
    assert (len(data.train), len(data.test)) == (10_147, 2_537)
    assert data.test.labels.mean().item() == pytest.approx(0.568, abs=1e-3)
    assert (len(data.schema.context), len(data.schema.target)) == (18, 7)
