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
