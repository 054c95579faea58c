"""How each data set is read, by its name."""

from collections.abc import Callable
from pathlib import Path

from rankopt.zoo.data import avazu, coupon, criteo, kuairand, movietweetings, taobao_ads
from rankopt.zoo.dataset import Dataset
from rankopt.zoo.errors import ZooError


def load(name: str, path: Path | None = None, cache: Path | None = None) -> Dataset:
    """A data set by its name, from `path` where it does not come with rankopt; `cache` keeps what is prepared once.

    Raises:
        ZooError: the files are missing, damaged or of another layout.
    """
    match name:
        case "movietweetings":
            return movietweetings.load(path or movietweetings.FOLDER)
        case "movietweetings_history":
            return movietweetings.load(path or movietweetings.FOLDER, movietweetings.HISTORY)
        case "coupon":
            return coupon.load(path)
        case "kuairand":
            return kuairand.load(path)
    raw: dict[str, Callable[[Path, Path | None], Dataset]] = {
        "criteo": criteo.load,
        "avazu": avazu.load,
        "taobao": taobao_ads.load,
    }
    if path is None:
        raise ZooError(f"expected the path of the {name} data, found none.\n  fix: --data-path PATH")
    return raw[name](path, cache)
