"""`rankopt`: the command line. It reads options, calls `rankopt.commands`, prints; nothing else.

A file per command. What they share: their options (`options`) and how those are read (`reading`), how results are
shown (`printing`), and what an error ends with (`failures`).

torch is imported by the commands when they run, not here: `rankopt --help` answers at once.
"""

import click

from rankopt.cli import calibrate, diff, explain, export, optimize, refresh, show, verify
from rankopt.cli.zoo import ZooGroup
from rankopt.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rankopt")
@click.option("--debug", is_flag=True, envvar="RANKOPT_DEBUG", hidden=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Rewrite a trained ranking model: what depends on the request alone is computed once per request.

    SEL selects inputs: by path (user_id), by glob (user_*), or columns of one (x[:, :20]). An option that
    takes several may be repeated, or given them separated by commas.

    \b
    Exit codes: 0 done, 1 the model or file was refused, 2 usage, 3 the scores are not identical.
    """


main.add_command(calibrate.calibrate)
main.add_command(diff.diff)
main.add_command(explain.explain)
main.add_command(export.export)
main.add_command(optimize.optimize)
main.add_command(refresh.refresh)
main.add_command(show.show)
main.add_command(verify.verify)
main.add_command(ZooGroup("zoo", help="Models of the field in plain torch: train, rewrite and compare them."))
