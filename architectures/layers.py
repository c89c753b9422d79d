"""Layers that several networks are made of."""

from backend import keras
from config import BONAFIDE, SPOOF

layers, ops = keras.layers, keras.ops

# short epochs of small sets must move the running averages too; Keras' 0.99 left dev near chance on them
BATCH_NORM_MOMENTUM = 0.9


def batch_norm(**arguments) -> layers.BatchNormalization:
    """Batch normalisation as every network here has it."""
    return layers.BatchNormalization(**{"momentum": BATCH_NORM_MOMENTUM, **arguments})


def logit_layer(units: int = 1) -> layers.Dense:
    """The usual last layer: embedding (b, n) -> logit (b, 1), float32 under mixed precision too."""
    return layers.Dense(units, dtype="float32", name="logit")


def convolution_with_norm(x, channels: int, kernel_size: int, strides: int = 1, norm: layers.Layer | None = None):
    """Convolution without bias, and batch or other norm: (b, t, f, c) -> (b, t / strides, f / strides, channels)."""
    # he_normal: Glorot's smaller weights would halve the signal at each rectifier
    x = layers.Conv2D(
        channels, kernel_size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return (norm or batch_norm())(x)


@keras.saving.register_keras_serializable(package="spoof_detection")
class SharedAndOwnNorm(layers.Layer):
    """Batch norm of pictures (b, t, f, c), but for the last `own` channels, which each piece normalises by itself.

    Time and bands are of a fixed size, as they are one axis with the channels to it; its gradient is written out. Both
    is for speed on a CPU (benchmarks/benchmark_norm.py).
    """

    def __init__(self, own: int = 0, momentum: float = BATCH_NORM_MOMENTUM, epsilon: float = 1e-3, **kwargs):
        super().__init__(**kwargs)
        self.own, self.momentum, self.epsilon = own, momentum, epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        self.shared = channels - self.own
        if not 0 <= self.own <= channels:
            raise ValueError(f"own {self.own}: of {channels} channels")
        # without autocast, which would round them to half precision
        self.gamma = self.add_weight(shape=(channels,), initializer="ones", autocast=False, name="gamma")
        self.beta = self.add_weight(shape=(channels,), initializer="zeros", autocast=False, name="beta")
        moving = {"shape": (self.shared,), "trainable": False, "autocast": False}
        self.moving_mean = self.add_weight(initializer="zeros", name="moving_mean", **moving)
        self.moving_variance = self.add_weight(initializer="ones", name="moving_variance", **moving)

    def call(self, x, training=None):
        if not training or not self.trainable:
            mean, inverse = self._scaling(x)
            slope = self.gamma * inverse  # (b, c), as all but x
            return _combined(self.beta - slope * mean, (x, slope))

        @ops.custom_gradient
        def normalised(x, gamma, beta, mean, inverse):
            slope = gamma * inverse

            def gradient(*arguments, upstream=None):  # by this name in PyTorch alone
                (upstream,) = arguments if upstream is None else (upstream,)
                means = _means(upstream)
                products = (_means(upstream, x) - mean * means) * inverse  # with what x became
                along = -slope * inverse * self._over_batch(products)
                constant = -slope * self._over_batch(means) - along * mean
                positions = x.shape[1] * x.shape[2]
                return (
                    _combined(constant, (upstream, slope), (x, along)),
                    positions * ops.sum(products, axis=0),
                    positions * ops.sum(means, axis=0),
                    ops.zeros_like(mean),  # what goes by way of the moments is in the first
                    ops.zeros_like(inverse),
                )

            return _combined(beta - slope * mean, (x, slope)), gradient

        # copies: TensorFlow takes no variables here
        return normalised(x, ops.copy(self.gamma), ops.copy(self.beta), *self._batch_scaling(ops.stop_gradient(x)))

    def _scaling(self, x):
        """Mean and inverse deviation by which each piece is normalised outside training: (b or 1, c)."""
        mean, variance = ops.expand_dims(self.moving_mean, 0), ops.expand_dims(self.moving_variance, 0)
        if self.own:
            own_mean = _means(x)
            own_variance = ops.maximum(_means(x, x) - ops.square(own_mean), 0)
            mean, variance = self._joined(mean, own_mean), self._joined(variance, own_variance)
        return mean, ops.rsqrt(variance + self.epsilon)

    def _batch_scaling(self, x):
        """The same in training, (b, c); it moves the moving averages."""
        mean, square = self._over_batch(_means(x)), self._over_batch(_means(x, x))
        variance = ops.maximum(square - ops.square(mean), 0)  # a difference of large numbers may end below 0
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now[0, : self.shared])
        return mean, ops.rsqrt(variance + self.epsilon)

    def _over_batch(self, values):
        """(b, c) -> (b, c): of the shared channels the mean over all pieces."""
        return self._joined(ops.mean(values[:, : self.shared], axis=0), values)

    def _joined(self, shared, own):
        """(b, c): of the first channels `shared`, for all pieces alike, then those of `own` (b, c)."""
        of_each = ops.broadcast_to(shared, (ops.shape(own)[0], self.shared))
        return ops.concatenate([of_each, own[:, self.shared :]], axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "own": self.own, "momentum": self.momentum, "epsilon": self.epsilon}


def _means(picture, times=None):
    """Mean over time and bands of a picture (b, t, f, c), or of the product of two: (b, c) in float32."""
    _, _, bands, channels = picture.shape
    product = _in_rows(picture) if times is None else _in_rows(picture) * _in_rows(times)
    return ops.mean(ops.reshape(ops.mean(product, axis=1), (-1, bands, channels)), axis=1)


def _combined(constant, *terms):
    """`constant` (b, c) and, for each term, a picture (b, t, f, c) times its factor (b, c): such a picture."""
    picture = terms[0][0]
    bands = picture.shape[2]
    total = sum((_in_rows(one) * _for_rows(factor, bands) for one, factor in terms), _for_rows(constant, bands))
    return ops.cast(ops.reshape(total, (-1, *picture.shape[1:])), picture.dtype)


def _in_rows(picture):
    """(b, t, f, c) -> (b, t, f c), float32: a CPU multiplies long rows several times as fast as a few channels."""
    return ops.cast(ops.reshape(picture, (-1, picture.shape[1], picture.shape[2] * picture.shape[3])), "float32")


def _for_rows(values, bands: int):
    """(b, c) -> (b, 1, f c)."""
    return ops.expand_dims(ops.tile(values, (1, bands)), 1)


@keras.saving.register_keras_serializable(package="spoof_detection")
class MaxFeatureMap(layers.Layer):
    """Element-wise maximum of two convolutions, the only activation in ResMax: (b, t, f, c) -> (b, t, f, filters).

    Two convolutions rather than one of twice the width that is split: equal, and a fifth faster on a CPU.
    """

    def __init__(self, filters: int, kernel_size: int, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size = filters, kernel_size
        self.first, self.second = (
            layers.Conv2D(filters, kernel_size, padding="same", dtype=self.dtype_policy, name=name)
            for name in ("first", "second")
        )

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, x):
        return ops.maximum(self.first(x), self.second(x))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable(package="spoof_detection")
class MeanRemoval(layers.Layer):
    """Subtract the mean over time of every frequency: (b, t, f, 1) -> the same.

    On a log spectrum that is what a microphone, a codec's band or an equaliser adds to every frame alike.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, x):
        return x - ops.mean(x, axis=1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="spoof_detection")
class FineStructure(layers.Layer):
    """What is left of a log spectrum (b, t, f, 1) without its envelope and without level: of the same shape.

    Each frame loses its moving average over `bins`, which is the voice's formants, the microphone and the level;
    then each frequency gets mean 0 and deviation 1 over time, which takes away the noise floor and the dynamics.
    """

    def __init__(self, bins: int = 17, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.bins = bins

    def call(self, x):
        margin = self.bins // 2
        padded = ops.pad(x, [[0, 0], [0, 0], [margin, margin], [0, 0]], mode="reflect")
        x = x - ops.average_pool(padded, (1, self.bins), strides=1, padding="valid", data_format="channels_last")
        x = x - ops.mean(x, axis=1, keepdims=True)
        # 0.1: digital silence and narrow bands have no deviation
        return x / (ops.std(x, axis=1, keepdims=True) + 0.1)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "bins": self.bins}


@keras.saving.register_keras_serializable(package="spoof_detection")
class PatchNormalisation(layers.Layer):
    """A log spectrum (b, t, f, 1) against its neighbourhood: mean 0 and deviation 1 in the patch around each point.

    Then each frequency loses its mean over time: what stays the same throughout is the recording's, not the voice's.
    """

    def __init__(self, size: int = 13, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.size = size

    def call(self, x):
        x = x - self._around(x)
        x = x / (ops.sqrt(self._around(ops.square(x))) + 0.2)  # 0.2: digital silence has no deviation
        return x - ops.mean(x, axis=1, keepdims=True)

    def _around(self, x):
        margin = self.size // 2
        x = ops.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]], mode="reflect")
        for patch in ((self.size, 1), (1, self.size)):  # one after the other: a sixth of the work
            x = ops.average_pool(x, patch, strides=1, padding="valid", data_format="channels_last")
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="spoof_detection")
class StatisticsPooling(layers.Layer):
    """Mean over frequency, then mean and standard deviation over time: (b, t, f, c) -> (b, 2 c)."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, x):
        x = ops.mean(x, axis=2)  # (b, t, c)
        # 1e-4: the square root has no slope at 0, which constant input would meet
        return ops.concatenate([ops.mean(x, axis=1), ops.sqrt(ops.var(x, axis=1) + 1e-4)], axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], 2 * input_shape[-1]


@keras.saving.register_keras_serializable(package="spoof_detection")
class ColumnLogits(layers.Layer):
    """One logit for each of the columns whose statistics lie side by side: (b, 2 columns c) -> (b, columns).

    The means of all columns come first, then the deviations of all, as StatisticsPooling gives them.
    """

    def __init__(self, columns: int, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.columns = columns

    def build(self, input_shape):
        channels = input_shape[-1] // (2 * self.columns)
        self.kernel = self.add_weight(shape=(2, self.columns, channels), initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.columns,), initializer="zeros", name="bias")

    def call(self, x):
        parts = ops.reshape(x, (-1, *self.kernel.shape))  # (b, 2, columns, c)
        return ops.sum(parts * self.kernel, axis=(1, 3)) + self.bias

    def compute_output_shape(self, input_shape):
        return input_shape[0], self.columns

    def get_config(self):
        return {**super().get_config(), "columns": self.columns}


@keras.saving.register_keras_serializable(package="spoof_detection")
class ColumnMean(layers.Layer):
    """The logit of several columns: (b, columns) -> (b, 1)."""

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})

    def call(self, x):
        return ops.mean(x, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return input_shape[0], 1


@keras.saving.register_keras_serializable(package="spoof_detection")
class TwoClassLogit(layers.Dense):
    """A two-class softmax layer seen as one logit: z_spoof - z_bonafide, (b, n) -> (b, 1).

    Training it with binary cross-entropy equals training two logits with softmax cross-entropy. The two stay
    reachable, for published systems score with the bona fide one alone.
    """

    def __init__(self, name: str = "logit", **kwargs):
        kwargs.pop("units", None)
        super().__init__(2, name=name, **{"dtype": "float32", **kwargs})

    def call(self, x):
        both = self.class_logits(x)
        return both[:, SPOOF : SPOOF + 1] - both[:, BONAFIDE : BONAFIDE + 1]

    def class_logits(self, x):
        """Both logits, (b, 2), indexed by BONAFIDE and SPOOF."""
        return super().call(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)
