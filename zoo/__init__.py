"""Rankers in plain torch, the data to train them on, and a small trainer.

The models are what a user would bring: ordinary `nn.Module`s over rows that know nothing of rankopt. Every
one is `forward(features: dict[str, Tensor]) -> Tensor`: ids of R rows in, R logits out.
"""

if __name__ != "rankopt.zoo":
    raise ImportError("import rankopt.zoo, not zoo: a second copy would be a second set of classes")

from rankopt.zoo.dataset import Recipe
from rankopt.zoo.fields import Field, Schema
from rankopt.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry", "Field", "Recipe", "Schema"]
