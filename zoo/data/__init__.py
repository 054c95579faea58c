"""The data sets of the zoo.

    movietweetings            shipped with rankopt
    movietweetings_history    the same rows, with the movies that the user rated before
    coupon, kuairand          small; from a path, or under $RANKOPT_DATA
    criteo, avazu, taobao     the raw files of the public benchmarks, from a path; prepared once, then streamed

`rankopt.zoo.data.sources.load` reads one; it needs the packages of the zoo extra, which the names do not.
"""

NAMES = ("movietweetings", "movietweetings_history", "coupon", "kuairand", "criteo", "avazu", "taobao")
