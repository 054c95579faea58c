"""ONNX models as torch modules, so that rankers of any framework can be rewritten.

    file --reading--> nodes, weights, inputs --model--> nn.Module --capture--> ATen graph, like any other model

One handler per operator (`elementwise`, `movement`, `lookups`, `reductions`, `products`, `normalising`), in the table
`operators.OPERATORS`. Shapes that the file computes from shapes are lists of sizes while it is read (`constants`), so
that the number of rows stays a symbol.
"""
