"""What the command line does: files in, files out. `rankopt.cli` reads the options and prints the results.

sources     the model in a file, and its example rows
rewriting   optimize, explain
exports     export, refresh
comparing   verify
reports     show, diff
pricing     calibrate
"""
