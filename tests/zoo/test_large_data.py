"""Raw files of the public benchmarks: their layouts, what is wrong with damaged ones, and what is streamed."""

import gzip
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from rankopt.zoo.data import NAMES, avazu, criteo, kuairand, movietweetings, parquet, taobao_ads
from rankopt.zoo.data.delimited import Layout, read_blocks
from rankopt.zoo.data.hashing import HashEncoder, random_parts, slot
from rankopt.zoo.data.parquet import ParquetRows, RowWriter
from rankopt.zoo.data.sources import load
from rankopt.zoo.dataset import Dataset
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import UNKNOWN
from rankopt.zoo.registry import ENTRIES
from rankopt.zoo.train import train

SHARED = Path(os.environ.get("RANKOPT_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROWS = 400
DAY = "20220408"

Loader = Callable[[Path, Path], Dataset]


def criteo_lines(rows: int = ROWS) -> list[str]:
    """A count grows with the row, a category has one of seven values or is empty."""
    counts = ["", "-1", "9", "10", "12345678901"]
    lines = []
    for row in range(rows):
        categories = ["" if (row + place) % 11 == 0 else f"{(row * place) % 7:08x}" for place in range(26)]
        lines.append("\t".join([str(row % 2), *(counts[(row + place) % 5] for place in range(13)), *categories]))
    return lines


def avazu_lines(rows: int = ROWS) -> list[str]:
    header = ",".join(["id", avazu.LABEL, *avazu.FIELDS])
    return [header, *(f"{10**19 + row},{row % 2},14102100," + ",".join([str(row % 5)] * 21) for row in range(rows))]


def write_taobao(folder: Path, rows: int = ROWS) -> None:
    """User 3 has no profile and advertisement 4 no features; the header ends in a blank, as the original's does."""
    sample = ["user,time_stamp,adgroup_id,pid,nonclk,clk"]
    sample += [f"{row % 4},{1494032110 + row},{row % 5},430548_1007,{row % 2},{1 - row % 2}" for row in range(rows)]
    ads = ["adgroup_id,cate_id,campaign_id,customer,brand,price"]
    ads += [f"{ad},{ad % 2},{ad},{2**70},{'NULL' if ad else 7},99.9" for ad in range(4)]
    users = ["userid," + ",".join(taobao_ads.USER) + " ", *(f"{user},1,2,1,{user},,3,0," for user in range(3))]
    for name, lines in (("raw_sample", sample), ("ad_feature", ads), ("user_profile", users)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


def write(path: Path, lines: list[str]) -> Path:
    text = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def all_rows(data: Dataset) -> int:
    assert data.validation is not None
    return len(data.train) + len(data.validation) + len(data.test)


@pytest.mark.parametrize("file", ["train.txt", "train.txt.gz"])
def test_criteo(tmp_path: Path, file: str) -> None:
    path = write(tmp_path / file, criteo_lines())
    data = criteo.load(path, tmp_path / "cache")
    assert all_rows(data) == ROWS
    assert [field.name for field in data.schema.fields] == [*criteo.COUNTS, *criteo.CATEGORIES]
    # small, negative and missing counts are one value, 10 and the large one are two; seven categories or none
    assert {field.vocabulary for field in data.schema.fields[:13]} == {2 + 3}
    assert data.schema.fields[14].vocabulary == 2 + 7
    rows = data.train.first(len(data.train))
    assert rows.labels.unique().tolist() == [0.0, 1.0]
    assert (rows.features["C2"] == UNKNOWN).any()
    assert all(rows.features[f.name].max() < f.vocabulary for f in data.schema.fields)
    again = criteo.load(tmp_path, tmp_path / "cache")  # by its folder, from the cache
    assert torch.equal(again.train.first(50).features["C7"], rows.features["C7"][:50])


def test_avazu_ids_have_more_than_64_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv.gz", avazu_lines())
    data = avazu.load(path, tmp_path / "cache")
    assert all_rows(data) == ROWS
    assert len(data.schema.fields) == 22
    assert data.schema.target == ("C1", "C14", "C15", "C16", "C17", "C18", "C19", "C20", "C21")
    assert data.recipe is not None
    assert (data.recipe.learning_rate, data.schedule.batch_size, data.schedule.epochs) == (1e-3, 2048, 1)


def test_taobao_joins_three_files(tmp_path: Path) -> None:
    write_taobao(tmp_path)
    data = taobao_ads.load(tmp_path, tmp_path / "cache")
    assert all_rows(data) == ROWS
    assert len(data.schema.fields) == 17
    features = data.train.first(len(data.train)).features
    by_user = {user: features["userid"] == user + 2 for user in range(4)}  # numbered as they are first met
    assert (features["age_level"][by_user[3]] == UNKNOWN).all()
    assert (features["age_level"][by_user[1]] != UNKNOWN).all()
    assert (features["pvalue_level"] == UNKNOWN).all()
    without_features = features["adgroup_id"] == 4 + 2
    assert (features["price"][without_features] == UNKNOWN).all()
    assert (features["customer"][~without_features] > UNKNOWN).all()
    known_brand = features["brand"] != UNKNOWN
    assert torch.equal(known_brand, features["adgroup_id"] == 2)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    lines = criteo_lines(20)
    csv = avazu_lines(20)
    cases: list[tuple[Loader, str, list[str], str]] = [
        (criteo.load, "train.txt", [line.replace("\t", ",") for line in lines], "seem to be separated by comma"),
        (criteo.load, "train.txt", [line.rsplit("\t", 1)[0] for line in lines], "expected 40 fields.*found 39"),
        (criteo.load, "train.txt", [*lines, "1\t2\t3"], "Expected 40 columns, got 3"),
        (criteo.load, "train.txt", [*lines[:7], "x" + lines[7][1:]], "label 0 or 1, found 'x' in row 8"),
        (criteo.load, "train.txt", ["0\tfew" + lines[0][2:], *lines], "whole numbers of 64 bits in column I1"),
        (criteo.load, "train.txt", [f"0\t{2**70}" + lines[0][2:]], "whole numbers of 64 bits"),
        (criteo.load, "train.txt", [""], "empty file"),
        (avazu.load, "train.csv", csv[1:], "expected a header with the columns"),
        (avazu.load, "train.csv", [csv[0].replace("site_id", "site"), *csv[1:]], r"columns \['site_id'\]"),
        (avazu.load, "train.csv", [line.replace(",", ";") for line in csv], "separated by semicolon"),
        (avazu.load, "train.csv", csv[:2], "too few rows"),
    ]
    for number, (loader, name, content, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ZooError, match=message):
            loader(write(folder / name, content), folder / "cache")
    with pytest.raises(ZooError, match="found no file"):
        criteo.load(tmp_path / "missing.txt", tmp_path)
    with pytest.raises(ZooError, match=r"expected train\.txt or"):
        criteo.load(tmp_path, tmp_path)
    with pytest.raises(ZooError, match="folder of the three"):
        taobao_ads.load(tmp_path / "raw_sample.csv", tmp_path)
    assert not list(tmp_path.glob("*/cache/criteo*"))  # nothing half prepared stays


def test_damaged_archives(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt.gz", criteo_lines())
    whole = path.read_bytes()
    for content, message in ((whole[:-20], "truncated"), (b"no archive", "damaged")):
        path.write_bytes(content)
        with pytest.raises(ZooError, match=message):
            criteo.load(path, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_user_twice_is_refused(tmp_path: Path) -> None:
    write_taobao(tmp_path)
    with (tmp_path / "user_profile.csv").open("a") as file:
        file.write("0,1,2,1,0,,3,0,\n")
    with pytest.raises(ZooError, match="every userid once"):
        taobao_ads.load(tmp_path, tmp_path / "cache")


def test_prepared_data_is_found_again_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write(tmp_path / "train.txt", criteo_lines()), tmp_path / "cache"
    criteo.load(path, cache)
    (first,) = cache.iterdir()
    monkeypatch.setattr(criteo, "read_blocks", None)
    assert all_rows(criteo.load(path, cache)) == ROWS  # nothing was read
    monkeypatch.undo()
    write(path, criteo_lines(ROWS + 1))
    assert all_rows(criteo.load(path, cache)) == ROWS + 1
    assert len(list(cache.iterdir())) == 2
    (first / "test.parquet").write_bytes(b"PAR1")
    write(path, criteo_lines())
    os.utime(path, ns=(0, 0))  # another time, another key
    assert all_rows(criteo.load(path, cache)) == ROWS


def test_blocks_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", avazu_lines(2000))
    layout = Layout(("device_ip",), ",", has_header=True)
    ids, sizes = [], []
    for block_bytes in (1 << 12, 1 << 20):
        encoder, blocks = HashEncoder(), list(read_blocks(path, layout, block_bytes))
        ids.append(np.concatenate([encoder.encode(block.column(0)) for block in blocks]))
        sizes.append(len(blocks))
    assert sizes[0] > 10 > sizes[1] == 1
    assert np.array_equal(*ids)
    together = random_parts(0, 10_000, (90, 1, 9))
    apart = np.concatenate([random_parts(0, 3333, (90, 1, 9)), random_parts(3333, 6667, (90, 1, 9))])
    assert np.array_equal(together, apart)
    assert np.bincount(together) / 10_000 == pytest.approx([0.90, 0.01, 0.09], abs=0.01)


def test_hashed_ids() -> None:
    encoder = HashEncoder(frozenset({"", "NULL"}), slots=5)
    assert encoder.encode(pa.array(["b", "", "a", "b", "NULL"])).tolist()[1::3] == [UNKNOWN, UNKNOWN]
    many = encoder.encode(pa.array([str(i) for i in range(100)]))
    assert encoder.vocabulary == 2 + 5
    assert set(many.tolist()) <= set(range(2, 7))
    assert slot("68fd1e64", 1_000_000) == 456_209  # on every machine
    assert len(HashEncoder().encode(pa.array([], pa.string()))) == 0


@pytest.fixture
def streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ParquetRows:
    """250 rows in row groups of 16, of which three are shuffled together."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 16)
    monkeypatch.setattr(parquet, "POOL_GROUPS", 3)
    numbers = np.arange(250, dtype=np.int32)
    writer = RowWriter(tmp_path / "rows.parquet", ["row", "twice"])
    for part in np.split(np.stack([numbers, 2 * numbers, numbers % 2], axis=1), [7, 100, 101]):
        writer.write(part)
    writer.close()
    return ParquetRows.open(tmp_path / "rows.parquet", ["row", "twice"])


def test_streamed_rows(streamed: ParquetRows) -> None:
    assert len(streamed) == 250
    ordered = list(streamed.batches(60))
    assert [len(batch) for batch in ordered] == [60, 60, 60, 60, 10]
    assert torch.equal(torch.cat([batch.features["row"] for batch in ordered]), torch.arange(250))
    shuffled = list(streamed.batches(60, seed=3))
    rows = torch.cat([batch.features["row"] for batch in shuffled])
    assert torch.equal(rows.sort().values, torch.arange(250))
    assert (rows.diff() == 1).float().mean() < 0.1
    assert all(torch.equal(batch.features["twice"], 2 * batch.features["row"]) for batch in shuffled)
    assert all(torch.equal(batch.labels, batch.features["row"] % 2) for batch in shuffled)
    for start in range(6):  # going on in the middle gives what is left of the same order
        rest = list(streamed.batches(60, seed=3, start=start))
        assert len(rest) == 5 - start
        assert all(
            torch.equal(a.features["row"], b.features["row"]) for a, b in zip(rest, shuffled[start:], strict=True)
        )
    assert not torch.equal(rows, torch.cat([batch.features["row"] for batch in streamed.batches(60, seed=4)]))
    assert list(streamed.only(["twice"]).first(3).features["twice"]) == [0, 2, 4]


def test_a_damaged_parquet_file_is_named(streamed: ParquetRows) -> None:
    streamed.path.write_bytes(streamed.path.read_bytes()[:100])
    with pytest.raises(ZooError, match=r"rows\.parquet cannot be read"):
        ParquetRows.open(streamed.path, streamed.names)


def test_streamed_data_trains(tmp_path: Path) -> None:
    data = avazu.load(write(tmp_path / "train.csv", avazu_lines(3000)), tmp_path / "cache")
    data = replace(data, schedule=replace(data.schedule, batch_size=64))
    result = train(ENTRIES["dnn"], data)
    assert (result.epochs, len(result.validation), result.complete) == (1, 1, True)


def test_every_name_is_a_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RANKOPT_DATA", raising=False)
    for name in NAMES[2:]:
        with pytest.raises(ZooError, match=r"found (none|neither)"):
            load(name)
    for name in NAMES[4:]:
        with pytest.raises(ZooError):
            load(name, tmp_path, tmp_path)


# ------------------------------------------------------------------------------------------------ small data


def kuairand_files(folder: Path, rows: int = 100) -> None:
    values = [(row % 7, row % 11, DAY, 100 * (row % 24), rows - row, 1000 + row, row % 2) for row in range(rows)]
    log = ["\t".join(kuairand.LOG), *("\t".join(map(str, row)) for row in values)]
    users = ["user_id," + ",".join(kuairand.USER)]
    users += [f'{user},full_active,0,1,"(10,50]"' + ",x" * (len(kuairand.USER) - 4) for user in range(6)]
    write(folder / "log.tsv.gz", log)
    write(folder / "user_features.csv", users)


def test_kuairand(tmp_path: Path) -> None:
    kuairand_files(tmp_path)
    data = kuairand.load(tmp_path)
    assert (len(data.train), len(data.test)) == (80, 20)
    assert data.schema.target == ("video_id", "duration")
    assert len(data.schema.context) == 3 + 25
    (duration,) = [field for field in data.schema.fields if field.name == "duration"]
    assert duration.vocabulary == 2 + 20
    write(tmp_path / "user_features.csv", ["user_id,age", "1,2"])
    with pytest.raises(ZooError, match="user_active_degree"):
        kuairand.load(tmp_path)
    packed = (tmp_path / "log.tsv.gz").read_bytes()
    (tmp_path / "log.tsv.gz").write_bytes(packed[:-9])
    with pytest.raises(ZooError, match="truncated"):
        kuairand.load(tmp_path)


def test_histories_end_before_the_row() -> None:
    events = [(1, 10), (2, 10), (1, 20), (1, 20), (1, 30), (2, 30), (1, 40)]
    assert movietweetings.earlier_rows(events, 2).tolist() == [
        [-1, -1],
        [-1, -1],
        [0, -1],
        [0, -1],  # the other rating of the same second is not before it
        [3, 2],
        [1, -1],
        [4, 3],
    ]


def test_movietweetings_with_histories() -> None:
    data = movietweetings.load(history=5)
    history = [field for field in data.schema.fields if field.is_history]
    assert [(field.name, field.of) for field in history] == [
        ("history_movie_id", "movie_id"),
        ("history_year", "year"),
        ("history_genres", "genres"),
        ("history_liked", ""),
    ]
    assert {field.name for field in history} <= set(data.schema.context)
    rows = data.train.first(20_000)
    assert {f.name: rows.features[f.name].shape[1:] for f in history} == {f.name: f.shape for f in history}
    # Of the first user with a history, by hand: the rows before, in the order of time, newest first.
    row = int((rows.features["history_movie_id"][:, 0] > UNKNOWN).nonzero()[0])
    user = rows.features["user_id"][row]
    assert user > UNKNOWN
    (earlier,) = (rows.features["user_id"][:row] == user).nonzero().T
    newest = int(earlier[-1])
    assert rows.features["history_movie_id"][row, 0] == rows.features["movie_id"][newest]
    assert torch.equal(rows.features["history_genres"][row, 0], rows.features["genres"][newest])
    assert rows.features["history_liked"][row, 0] == 2 + rows.labels[newest]


# ------------------------------------------------------------------------------------- as they were published

PUBLISHED = {
    "criteo": ("format_only/criteo_kaggle_head", 1_999),
    "avazu": ("format_only/avazu_kaggle_head", 499),
    "taobao": ("format_only/taobao_ad_sample/raw_layout", 304),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_beginnings_of_the_real_files(name: str, tmp_path: Path) -> None:
    folder, rows = PUBLISHED[name]
    if not (SHARED / folder).is_dir():
        pytest.skip("the beginnings of the published files are not part of the repository")
    data = load(name, SHARED / folder, tmp_path)
    assert all_rows(data) == rows
    assert len(data.schema.fields) == {"criteo": 39, "avazu": 22, "taobao": 17}[name]


def test_kuairand_has_its_published_size() -> None:
    if not (SHARED / kuairand.FOLDER).is_dir():
        pytest.skip("the KuaiRand selection is not part of the repository")
    data = kuairand.load(SHARED / kuairand.FOLDER)
    assert (len(data.train), len(data.test)) == (33_462, 8_366)
    labels = torch.cat([data.train.first(len(data.train)).labels, data.test.first(len(data.test)).labels])
    assert labels.mean().item() == pytest.approx(0.462, abs=1e-3)
