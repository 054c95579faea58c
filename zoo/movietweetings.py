"""MovieTweetings: 100,000 movie ratings that people posted between February and September 2013.

Dooms, De Pessemier, Martens: MovieTweetings: a Movie Rating Dataset Collected From Twitter. CrowdRec at
RecSys 2013. MIT licence; the files lie beside this module.

    label      rating >= 8
    context    user_id, hour, weekday (UTC)
    target     movie_id, year, genres (multi-valued)
    split      by time: the first 80,000 ratings train, the last 20,000 test
"""

import gzip
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from rankopt.zoo.dataset import Column, Dataset, Schedule, encode_dataset
from rankopt.zoo.errors import ZooError

FOLDER = Path(__file__).parent / "data" / "movietweetings_100k"
SHA256 = {
    "movies.dat.gz": "cd60fb54f4ecf0492091e69720bde42d39995c6f1d77117d36cd036dba0e91b5",
    "ratings.dat.gz": "2ecdfa5006ac1efaf5582de8d85be818f97740f252ebe1536d2a2453d025a834",
}
TRAIN_ROWS = 80_000
LIKED = 8
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


def load(folder: Path = FOLDER) -> Dataset:
    """The data set, split by time.

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
    target = ("movie_id", "year", "genres")
    return encode_dataset("movietweetings", columns, labels, target=target, train_rows=TRAIN_ROWS, schedule=Schedule())


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
