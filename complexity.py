"""How much arithmetic a network does: multiply-adds, counted in the graph that TensorFlow makes of it.

    multiply_adds(build_network(load_recipe("resmax_la")))

Convolutions, matrix products and einsums count, loops (LSTM, GRU) as often as they run; what is element-wise
(activations, normalisation) does not, as is the custom of papers. The front end is not part of the network.
"""

import math
from typing import Any

from backend import keras
from errors import UserError


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of one clip through a network; its recurrent layers are kept off cuDNN from then on."""
    if keras.backend.backend() != "tensorflow":
        raise UserError("multiply-adds are counted in TensorFlow's graph: unset KERAS_BACKEND")
    import tensorflow as tf

    # a lone clip's batch axis can vanish in a reshape, so that a product's size is unknown; two keep it
    batch = 2
    for layer in network._flatten_layers():
        if hasattr(layer, "use_cudnn"):  # on a GPU a loop would vanish into one operation
            layer.use_cudnn = False
    signature = tf.TensorSpec((batch, *network.input_shape[1:]), tf.float32)
    graph = tf.function(lambda x: network(x, training=False), autograph=False).get_concrete_function(signature).graph
    with tf.compat.v1.Session(graph=graph) as session:  # finds how often a loop runs

        def of_graph(graph: Any) -> int:
            return sum(of_operation(operation) for operation in _used(graph))

        def of_operation(operation: Any) -> int:
            if operation.type in ("While", "StatelessWhile"):
                body = graph._get_function(operation.get_attr("body").name).graph
                return int(session.run(operation.inputs[1])) * of_graph(body)
            if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
                return of_graph(graph._get_function(operation.get_attr("f").name).graph)
            return _of_product(operation)

        return of_graph(graph) // batch


def _used(graph: Any) -> set[Any]:
    """The operations that a graph's outputs depend on: Keras leaves a trial step of every loop in it."""
    used, open_ends = set(), [tensor.op for tensor in graph.outputs]
    while open_ends:
        operation = open_ends.pop()
        if operation not in used:
            used.add(operation)
            open_ends += [tensor.op for tensor in operation.inputs]
    return used


def _of_product(operation: Any) -> int:
    """Multiply-adds of one convolution or matrix product, 0 for any other operation."""
    kind = operation.type
    if kind in ("Conv2D", "DepthwiseConv2dNative", "Conv3D"):
        kernel = operation.inputs[1].shape.as_list()  # (..., channels in, channels out)
        macs_each = math.prod(kernel[:-1]) if kind != "DepthwiseConv2dNative" else math.prod(kernel[:-2])
        return _size(operation.outputs[0]) * macs_each
    if kind == "MatMul":
        rows = operation.inputs[0].shape.as_list()
        return _size(operation.outputs[0]) * rows[0 if operation.get_attr("transpose_a") else 1]
    if kind.startswith("BatchMatMul"):
        rows = operation.inputs[0].shape.as_list()
        return _size(operation.outputs[0]) * rows[-2 if operation.get_attr("adj_x") else -1]
    if kind == "Einsum":
        sizes = {}
        subscripts = operation.get_attr("equation").decode().split("->")[0].split(",")
        for letters, tensor in zip(subscripts, operation.inputs, strict=True):
            sizes |= zip(letters, tensor.shape.as_list(), strict=True)
        return math.prod(sizes.values())
    return 0


def _size(tensor: Any) -> int:
    return math.prod(tensor.shape.as_list())
