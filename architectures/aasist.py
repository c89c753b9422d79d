"""AASIST and AASIST-L: graph attention over frequency and time, on raw samples.

    from architectures.aasist import aasist, aasist_l
    network = aasist((64_600, 1))       # samples (batch, 64600, 1) -> logit (batch, 1)

J. Jung et al., "AASIST: Audio Anti-Spoofing using Integrated Spectro-Temporal Graph Attention Networks",
ICASSP 2022. Fixed band-pass filters, a residual encoder, one graph whose nodes are frequencies and one whose
nodes are moments, two branches in which both graphs and a master node attend to each other, and a read-out of
160 values: the output of the layer `embedding`, which reaches `logit` through a dropout.

The published code computes a batch normalisation and a SELU at the start of every residual block but the
first and then discards them. They are left out here, so the published parameter counts (297,866 and 85,306)
are higher than ours by those layers' 512 and 272. `import_weights.py` reads the published checkpoints.
"""

from collections.abc import Sequence
from functools import partial

from architectures.layers import TwoClassLogit, batch_norm
from architectures.sinc import SincFilters
from backend import keras

layers, ops = keras.layers, keras.ops

EPSILON = 1e-5  # of every batch normalisation: the published weights depend on it
# output channels of the six residual blocks, node sizes, shares of the nodes that a pooling keeps
LARGE = {"filters": (32, 32, 64, 64, 64, 64), "gat_dims": (64, 32), "pool_ratios": (0.5, 0.7, 0.5)}
SMALL = {"filters": (32, 32, 24, 24, 24, 24), "gat_dims": (24, 32), "pool_ratios": (0.4, 0.5, 0.7)}


@keras.saving.register_keras_serializable(package="spoof_detection")
class MaxMagnitude(layers.Layer):
    """The largest absolute value along one axis, which is dropped."""

    def __init__(self, axis: int, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x):
        return ops.max(ops.abs(x), axis=self.axis)

    def compute_output_shape(self, input_shape):
        return (*input_shape[: self.axis], *input_shape[self.axis + 1 :])

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


class GraphLayer(layers.Layer):
    """Base of the layers on nodes (b, nodes, size). They cost about a hundredth of the network's time and
    their softmax and ranking need the digits: float32 under mixed precision too.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def dense(self, units: int, name: str) -> layers.Dense:
        return layers.Dense(units, dtype=self.dtype_policy, name=name)

    def directions(self, count: int, name: str):
        """Vectors (units, count) onto which a tanh is projected to give the strength of an edge."""
        return self.add_weight(shape=(self.units, count), initializer="glorot_normal", name=name)


@keras.saving.register_keras_serializable(package="spoof_detection")
class NodePosition(GraphLayer):
    """Adds a learned vector to every node: (b, nodes, size) -> same shape."""

    def build(self, input_shape):
        self.position = self.add_weight(shape=input_shape[1:], initializer="random_normal", name="position")

    def call(self, x):
        return x + self.position


def _pairs(x):
    """Products of every two nodes: (b, n, d) -> (b, n, n, d)."""
    return x[:, :, None] * x[:, None]


@keras.saving.register_keras_serializable(package="spoof_detection")
class GraphAttention(GraphLayer):
    """Every node gathers from all nodes of its graph: (b, n, d) -> (b, n, units)."""

    def __init__(self, units: int, temperature: float, dropout: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.temperature, self.dropout = units, temperature, dropout
        self.drop = layers.Dropout(dropout, dtype=self.dtype_policy)
        self.edge = self.dense(units, "edge")
        self.gathered = self.dense(units, "gathered")
        self.own = self.dense(units, "own")
        self.norm = batch_norm(epsilon=EPSILON, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        for layer in (self.edge, self.gathered, self.own):
            layer.build(input_shape)
        self.norm.build((*input_shape[:-1], self.units))
        self.direction = self.directions(1, "direction")

    def call(self, x, training=None):
        x = self.drop(x, training=training)
        strength = ops.matmul(ops.tanh(self.edge(_pairs(x))), self.direction)[..., 0]  # (b, n, n)
        attention = ops.softmax(strength / self.temperature, axis=-1)
        x = self.gathered(ops.matmul(attention, x)) + self.own(x)
        return ops.selu(self.norm(x, training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        own = {"units": self.units, "temperature": self.temperature, "dropout": self.dropout}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="spoof_detection")
class CrossGraphAttention(GraphLayer):
    """Time and frequency nodes and a master node attend to each other.

    [(b, t, d), (b, f, d)] and, unless this layer learns its own, the master (b, 1, d)
    -> (b, t, units), (b, f, units), (b, 1, units). An edge's strength depends on the kinds of its two ends;
    the master listens to all nodes and none listens to it.
    """

    def __init__(self, units: int, temperature: float, learned_master: bool = False, dropout: float = 0.2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.temperature = units, temperature
        self.learned_master, self.dropout = learned_master, dropout
        self.drop = layers.Dropout(dropout, dtype=self.dtype_policy)
        self.edge = self.dense(units, "edge")
        self.gathered = self.dense(units, "gathered")
        self.own = self.dense(units, "own")
        self.master_edge = self.dense(units, "master_edge")
        self.master_gathered = self.dense(units, "master_gathered")
        self.master_own = self.dense(units, "master_own")
        self.norm = batch_norm(epsilon=EPSILON, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        size = input_shape[0][-1]
        self.of_time, self.of_frequency = self.dense(size, "of_time"), self.dense(size, "of_frequency")
        for layer in (
            self.of_time,
            self.of_frequency,
            self.edge,
            self.gathered,
            self.own,
            self.master_edge,
            self.master_gathered,
            self.master_own,
        ):
            layer.build((None, None, size))
        self.norm.build((None, None, self.units))
        self.direction = self.directions(3, "direction")  # time-time, time-frequency, frequency-frequency
        self.master_direction = self.directions(1, "master_direction")
        if self.learned_master:
            self.master = self.add_weight(shape=(1, 1, size), initializer="random_normal", name="master")

    def call(self, inputs, training=None):
        time, frequency = inputs[:2]
        moments = time.shape[1]
        x = ops.concatenate([self.of_time(time), self.of_frequency(frequency)], axis=1)
        x = self.drop(x, training=training)  # (b, n = t + f, d)
        master = self._master(x, self.master if self.learned_master else inputs[2])
        x = self.gathered(ops.matmul(self._attention(x, moments), x)) + self.own(x)
        x = ops.selu(self.norm(x, training=training))
        return x[:, :moments], x[:, moments:], master

    def _attention(self, x, moments: int):
        """Weights (b, n, n) with which a node (axis 1) listens to the others (axis 2)."""
        strength = ops.matmul(ops.tanh(self.edge(_pairs(x))), self.direction)  # (b, n, n, 3)
        of_time = [strength[:, :moments, :moments, 0], strength[:, :moments, moments:, 1]]
        of_frequency = [strength[:, moments:, :moments, 1], strength[:, moments:, moments:, 2]]
        strength = ops.concatenate([ops.concatenate(part, axis=2) for part in (of_time, of_frequency)], axis=1)
        return ops.softmax(strength / self.temperature, axis=-1)

    def _master(self, x, master):
        strength = ops.matmul(ops.tanh(self.master_edge(x * master)), self.master_direction)  # (b, n, 1)
        attention = ops.softmax(strength / self.temperature, axis=1)
        gathered = ops.sum(attention * x, axis=1, keepdims=True)  # (b, 1, d)
        return self.master_gathered(gathered) + self.master_own(master)

    def compute_output_shape(self, input_shape):
        batch = input_shape[0][0]
        return tuple((batch, nodes, self.units) for nodes in (input_shape[0][1], input_shape[1][1], 1))

    def get_config(self):
        own = {"units": self.units, "temperature": self.temperature}
        return {**super().get_config(), **own, "learned_master": self.learned_master, "dropout": self.dropout}


@keras.saving.register_keras_serializable(package="spoof_detection")
class GraphPooling(GraphLayer):
    """Keeps the share `ratio` of the nodes with the highest scores, best first, each times its score.

    (b, n, d) -> (b, max(1, int(n * ratio)), d). The score's gradient flows through that product.
    """

    def __init__(self, ratio: float, dropout: float = 0.3, **kwargs):
        super().__init__(**kwargs)
        self.ratio, self.dropout = ratio, dropout
        self.drop = layers.Dropout(dropout, dtype=self.dtype_policy)
        self.score = self.dense(1, "score")

    def build(self, input_shape):
        self.score.build(input_shape)

    def call(self, x, training=None):
        scores = ops.sigmoid(self.score(self.drop(x, training=training)))  # (b, n, 1)
        nodes, size = x.shape[1:]
        _, best = ops.top_k(scores[..., 0], self._kept(x.shape))  # (b, kept)
        first = nodes * ops.arange(ops.shape(x)[0], dtype="int32")[:, None]  # rows of a clip in the flat list
        return ops.take(ops.reshape(x * scores, (-1, size)), ops.cast(best, "int32") + first, axis=0)

    def _kept(self, input_shape) -> int:
        return max(1, int(input_shape[1] * self.ratio))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._kept(input_shape), input_shape[2])

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio, "dropout": self.dropout}


def _residual_block(x, filters: int, name: str):
    """Two convolutions and a skip, then a third of the moments: (b, f, t, c) -> (b, f, t // 3, filters).

    Time comes second: a CPU runs these convolutions a fifth faster along the longer axis.
    """
    skip = x
    if x.shape[-1] != filters:
        skip = layers.Conv2D(filters, (1, 3), padding="same", name=f"{name}_skip")(x)
    x = layers.ZeroPadding2D((1, 1), name=f"{name}_first_pad")(x)
    x = layers.Conv2D(filters, (2, 3), name=f"{name}_first")(x)  # (b, f + 1, t, filters)
    x = batch_norm(epsilon=EPSILON, name=f"{name}_norm")(x)
    x = layers.Activation("selu", name=f"{name}_selu")(x)
    x = layers.ZeroPadding2D((0, 1), name=f"{name}_second_pad")(x)
    x = layers.Conv2D(filters, (2, 3), name=f"{name}_second")(x)  # (b, f, t, filters)
    x = layers.Add(name=f"{name}_add")([x, skip])
    return layers.MaxPooling2D((1, 3), name=name)(x)


def aasist(
    input_shape: tuple[int, int],
    filters: Sequence[int] = LARGE["filters"],
    gat_dims: Sequence[int] = LARGE["gat_dims"],
    pool_ratios: Sequence[float] = LARGE["pool_ratios"],
    temperatures: Sequence[float] = (2.0, 2.0, 100.0),
    sinc_filters: int = 70,
    taps: int = 129,
    dropout: float = 0.5,
    branch_dropout: float = 0.2,
    graph_dropout: float = 0.2,
    pool_dropout: float = 0.3,
) -> keras.Model:
    """AASIST: (samples, 1) -> logit. `pool_ratios` and `temperatures` are those of the frequency graph, the
    time graph and both together (the published configuration lists a fourth, which nothing reads).
    """
    shortest = taps - 1 + 3 ** (len(filters) + 1)
    if len(input_shape) != 2 or input_shape[1] != 1 or input_shape[0] < shortest:
        raise ValueError(f"takes (samples, 1) with at least {shortest} samples")
    if not all(0 < ratio <= 1 for ratio in pool_ratios):
        raise ValueError(f"pool_ratios are {tuple(pool_ratios)}; each is a share above 0, at most 1")

    inputs = keras.Input(input_shape, name="features")
    x = SincFilters(sinc_filters, taps, band_pool=3, name="sinc")(inputs)  # (b, 21490, 23)
    x = layers.Permute((2, 1), name="bands_first")(x)
    x = layers.Reshape((*x.shape[1:], 1), name="picture")(x)
    x = batch_norm(epsilon=EPSILON, name="first_norm")(x)
    x = layers.Activation("selu", name="first_selu")(x)
    for k, width in enumerate(filters):
        x = _residual_block(x, width, f"block{k}")  # (b, 23, 29, 64) in the end

    size, branch_size = gat_dims
    frequency = NodePosition(name="frequency_position")(MaxMagnitude(2, name="frequency_nodes")(x))  # (b, 23, 64)
    frequency = GraphAttention(size, temperatures[0], graph_dropout, name="frequency_attention")(frequency)
    frequency = GraphPooling(pool_ratios[0], pool_dropout, name="frequency_pool")(frequency)  # (b, 11, 64)
    time = MaxMagnitude(1, name="time_nodes")(x)  # (b, 29, 64)
    time = GraphAttention(size, temperatures[1], graph_dropout, name="time_attention")(time)
    time = GraphPooling(pool_ratios[1], pool_dropout, name="time_pool")(time)  # (b, 20, 64)

    branches = []
    for k in (1, 2):
        cross = {"temperature": temperatures[2], "dropout": graph_dropout}
        first = CrossGraphAttention(branch_size, learned_master=True, **cross, name=f"branch{k}_first")
        t, f, master = first([time, frequency])
        t = GraphPooling(pool_ratios[2], pool_dropout, name=f"branch{k}_time_pool")(t)  # (b, 10, 32)
        f = GraphPooling(pool_ratios[2], pool_dropout, name=f"branch{k}_frequency_pool")(f)  # (b, 5, 32)
        second = CrossGraphAttention(branch_size, **cross, name=f"branch{k}_second")([t, f, master])
        kinds = zip(("time", "frequency", "master"), (t, f, master), second, strict=True)
        branches.append(
            [
                layers.Dropout(branch_dropout, name=f"branch{k}_{kind}_dropout")(
                    layers.Add(name=f"branch{k}_{kind}")([before, after])
                )
                for kind, before, after in kinds
            ]
        )

    time, frequency, master = (
        layers.Maximum(name=kind)(list(both))
        for kind, both in zip(("time", "frequency", "master"), zip(*branches, strict=True), strict=True)
    )
    parts = []
    for kind, nodes in (("time", time), ("frequency", frequency)):
        parts.append(MaxMagnitude(1, name=f"{kind}_max")(nodes))
        parts.append(layers.GlobalAveragePooling1D(name=f"{kind}_mean")(nodes))
    parts.append(layers.Flatten(name="master_values")(master))
    x = layers.Concatenate(name="embedding")(parts)  # (b, 160)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, TwoClassLogit()(x), name="aasist")


aasist_l = partial(aasist, **SMALL)  # AASIST-L, 85 K parameters: the same function with other defaults
