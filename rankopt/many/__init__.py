"""Many requests in one call: derived from the stages of one request, not from the model again.

    context stage      every value gets a leading request dim                             [1, d]  ->  [B, 1, d]
    candidate stage    the rows of all requests lie flat, R of them, and whatever reads
                       only weights and rows runs as it is                                [N, d]  ->  [R, d]
    the join           what reads a state and rows meets them request by request          [B, N, d]

A dense call has N candidates for each request, and the join is a view. A ragged call says of which request each row
is (`request_of`); the join takes the state of each row, and a product takes the rows of each request, padded to the
longest.
"""
