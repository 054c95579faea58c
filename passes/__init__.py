"""The laws by which programs are rewritten, one file per algebraic family."""

if __name__ != "rankopt.passes":
    raise ImportError("import rankopt.passes, not passes: a second copy would register every rule twice")
