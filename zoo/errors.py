"""What goes wrong with data and files, never in a model."""

from rankopt.errors import RankoptError


class ZooError(RankoptError):
    """A data set or a file is not what it should be: missing, damaged, of another layout, or in the way.

    The message names the file, what was expected of it, and how to get or replace it."""
