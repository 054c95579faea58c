"""The blocks of random rankers, in the spellings of real models: importing this module registers them all."""

from rankers.blocks import attention, fields, ids, interactions, layers, sequences
from rankers.blocks.registry import BLOCKS

__all__ = ["BLOCKS", "attention", "fields", "ids", "interactions", "layers", "sequences"]
