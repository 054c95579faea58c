"""KuaiRand: impressions of short videos with profiles of their viewers; a selection of 41,828 rows.

Gao et al.: KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos. CIKM 2022. Not shipped
with rankopt: `log.tsv` and `user_features.csv` of users with likes and hates, gzipped or not. Whatever is known only
after the impression is no feature.

    label      long_view: the video was watched to (almost) its end
    context    user_id, hour, weekday, the user's activity, ranges of counts and anonymous features
    target     video_id, duration in twenty quantiles of the training rows
    split      by time: the first 80 % train
"""

import csv
import gzip
import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import quantiles

from rankopt.zoo.data.prepared import find_file
from rankopt.zoo.dataset import Column, Dataset, Schedule, encode_dataset
from rankopt.zoo.errors import ZooError

LABEL = "long_view"
LOG = ("user_id", "video_id", "date", "hourmin", "time_ms", "duration_ms", LABEL)
USER = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{i}" for i in range(18)),
)
TARGET = ("video_id", "duration")
TRAIN_SHARE = 0.8
DURATIONS = 20
FOLDER = "kuairand_like_hate"


def load(folder: Path | None = None) -> Dataset:
    """The data set; without a folder, from `$RANKOPT_DATA/kuairand_like_hate`.

    Raises:
        ZooError: a file is missing, or has other columns.
    """
    folder = folder or default_folder()
    log = read_rows(find_file(folder, "log.tsv"), "\t", LOG)
    profiles_file = find_file(folder, "user_features.csv")
    users = {row["user_id"]: row for row in read_rows(profiles_file, ",", ("user_id", *USER))}
    log.sort(key=lambda row: (int(row["time_ms"]), row["user_id"], row["video_id"]))
    train_rows = round(len(log) * TRAIN_SHARE)
    cuts = quantiles([int(row["duration_ms"]) for row in log[:train_rows]], n=DURATIONS)
    nothing = dict.fromkeys(USER, "")
    profiles = [users.get(row["user_id"], nothing) for row in log]
    columns: dict[str, Column] = {
        "user_id": [(row["user_id"],) for row in log],
        "hour": [(str(int(row["hourmin"]) // 100),) for row in log],
        "weekday": [(str(day_of(row["date"]).weekday()),) for row in log],
        **{name: [(profile[name],) for profile in profiles] for name in USER},
        "video_id": [(row["video_id"],) for row in log],
        "duration": [(str(bisect_right(cuts, int(row["duration_ms"]))),) for row in log],
    }
    labels = [int(row[LABEL]) for row in log]
    return encode_dataset("kuairand", columns, labels, target=TARGET, train_rows=train_rows, schedule=Schedule())


def day_of(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def default_folder() -> Path:
    """Where the environment says that the files lie.

    Raises:
        ZooError: the environment does not say.
    """
    folder = os.environ.get("RANKOPT_DATA")
    if not folder:
        raise ZooError(
            "expected the folder of the KuaiRand data, found neither an argument nor the variable RANKOPT_DATA.\n"
            f"  fix: pass its path, or put it at $RANKOPT_DATA/{FOLDER}"
        )
    return Path(folder) / FOLDER


def read_rows(path: Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The file as one dictionary per row.

    Raises:
        ZooError: the file is missing, truncated, or lacks a column.
    """
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ZooError(f"{path} is missing, truncated or damaged: {error}.\n  fix: get the file again") from error
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    missing = [name for name in columns if not rows or rows[0].get(name) is None]
    if missing:
        raise ZooError(f"{path}: expected rows with the columns {missing}, found none.\n  fix: pass the published file")
    return rows
