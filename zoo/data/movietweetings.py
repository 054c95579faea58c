"""MovieTweetings: 100,000 movie ratings that people posted between February and September 2013.

Dooms, De Pessemier, Martens: MovieTweetings: a Movie Rating Dataset Collected From Twitter. CrowdRec at
RecSys 2013. MIT licence; the files lie beside this module.

    label      rating >= 8
    context    user_id, hour, weekday (UTC)
    target     movie_id, year, genres (multi-valued)
    history    if asked for: what the user rated strictly before, the newest first: movie, year, genres, and whether
               the rating was >= 8 (context)
    split      by time: the first 80,000 ratings train, the last 20,000 test
"""

import gzip
import hashlib
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rankopt.zoo.dataset import Column, Dataset, Rows, Schedule, encode_dataset
from rankopt.zoo.errors import ZooError
from rankopt.zoo.fields import PADDING, UNKNOWN, Field, Schema

FOLDER = Path(__file__).parent / "movietweetings_100k"
SHA256 = {
    "movies.dat.gz": "cd60fb54f4ecf0492091e69720bde42d39995c6f1d77117d36cd036dba0e91b5",
    "ratings.dat.gz": "2ecdfa5006ac1efaf5582de8d85be818f97740f252ebe1536d2a2453d025a834",
}
TRAIN_ROWS = 80_000
TARGET = ("movie_id", "year", "genres")
HISTORY = 20
"""Earlier ratings that are kept of a user; half of the users have at most two."""
LIKED = 8
SCHEDULE = Schedule()
HOUR = 3600
DAY = 24 * HOUR
EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; Monday is 0."""


class Rating(NamedTuple):
    """One line of ratings.dat, in the order that sorts by time."""

    timestamp: int
    user_id: int
    movie_id: str
    rating: int


class Movie(NamedTuple):
    year: str
    genres: tuple[str, ...]


def load(folder: Path = FOLDER, history: int = 0) -> Dataset:
    """The data set, split by time; with the user's last `history` ratings before each row, if any are asked for.

    Raises:
        ZooError: a file is missing or is not the one that was published.
    """
    ratings = sorted(parse_rating(line) for line in read_lines(folder / "ratings.dat.gz"))
    movies = dict(parse_movie(line) for line in read_lines(folder / "movies.dat.gz"))
    rated = [movies[rating.movie_id] for rating in ratings]
    moments = [hour_and_weekday(rating.timestamp) for rating in ratings]
    columns: dict[str, Column] = {
        "user_id": [(str(rating.user_id),) for rating in ratings],
        "hour": [(str(hour),) for hour, _ in moments],
        "weekday": [(str(weekday),) for _, weekday in moments],
        "movie_id": [(rating.movie_id,) for rating in ratings],
        "year": [(movie.year,) for movie in rated],
        "genres": [movie.genres for movie in rated],
    }
    labels = [int(rating.rating >= LIKED) for rating in ratings]
    data = encode_dataset("movietweetings", columns, labels, target=TARGET, train_rows=TRAIN_ROWS, schedule=SCHEDULE)
    if not history:
        return data
    return with_history(data, earlier_rows([(r.user_id, r.timestamp) for r in ratings], history))


def earlier_rows(events: Sequence[tuple[int, int]], length: int) -> Tensor:
    """For rows (user, time) in the order of time, the user's last `length` rows before each, the newest first.

    Rows of the very same time are not before. [R, length], -1 where there are no more.
    """
    rows_of: dict[int, list[int]] = {}
    times_of: dict[int, list[int]] = {}
    found: list[list[int]] = []
    for row, (user, time) in enumerate(events):
        rows, times = rows_of.setdefault(user, []), times_of.setdefault(user, [])
        before = bisect_left(times, time)
        newest_first = rows[max(0, before - length) : before][::-1]
        found.append(newest_first + [-1] * (length - len(newest_first)))
        rows.append(row)
        times.append(time)
    return torch.tensor(found, dtype=torch.int64).reshape(len(events), length)


def with_history(data: Dataset, earlier: Tensor) -> Dataset:
    """The data set with the movies of earlier rows [R, L], and whether they were liked, as further context."""
    train, test = data.train.first(len(data.train)), data.test.first(len(data.test))
    labels = torch.cat([train.labels, test.labels])
    features = {name: torch.cat([train.features[name], test.features[name]]) for name in train.features}
    listed = {f"history_{name}": features[name] for name in TARGET}
    listed["history_liked"] = labels.long() + UNKNOWN + 1
    for name, ids in listed.items():
        has_row = (earlier >= 0).reshape(*earlier.shape, *[1] * (ids.dim() - 1))
        features[name] = torch.where(has_row, ids[earlier.clamp(min=0)], PADDING)
    by_name = {field.name: field for field in data.schema.fields}
    length = earlier.shape[1]
    fields = [replace(by_name[name], name=f"history_{name}", history=length, of=name) for name in TARGET]
    fields.append(Field("history_liked", UNKNOWN + 3, history=length))
    schema = Schema((*data.schema.fields, *fields), (*data.schema.context, *listed), data.schema.target)
    train, test = Rows(features, labels).split(len(data.train))
    return replace(data, name="movietweetings_history", schema=schema, train=train, test=test)


def hour_and_weekday(timestamp: int) -> tuple[int, int]:
    """Hour of the day and day of the week (Monday is 0) of a Unix time in seconds, in UTC."""
    return timestamp % DAY // HOUR, (timestamp // DAY + EPOCH_WEEKDAY) % 7


def parse_rating(line: str) -> Rating:
    user_id, movie_id, rating, timestamp = line.split("::")
    return Rating(int(timestamp), int(user_id), movie_id, int(rating))


def parse_movie(line: str) -> tuple[str, Movie]:
    movie_id, title, genres = line.split("::")
    year = re.search(r"\((\d{4})\)$", title)
    return movie_id, Movie(year.group(1) if year else "", tuple(filter(None, genres.split("|"))))


def read_lines(path: Path) -> list[str]:
    """The lines of one published file.

    Raises:
        ZooError: the file is missing or is not the one that was published.
    """
    if not path.is_file():
        raise ZooError(
            f"expected the MovieTweetings file {path}, found none.\n  fix: reinstall rankopt, which brings it"
        )
    packed = path.read_bytes()
    if (found := hashlib.sha256(packed).hexdigest()) != SHA256[path.name]:
        raise ZooError(
            f"{path} is damaged: expected sha256 {SHA256[path.name]}, found {found}.\n"
            "  fix: reinstall rankopt, which brings the file"
        )
    return gzip.decompress(packed).decode().splitlines()
