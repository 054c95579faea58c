"""`rankopt zoo`: the commands of the zoo, beside those of rankopt."""

import click


class ZooGroup(click.Group):
    """The commands of `rankopt.zoo`, which are imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return self._loaded().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        return self._loaded().get_command(ctx, cmd_name)

    def _loaded(self) -> click.Group:
        from rankopt.zoo.cli import zoo

        return zoo
