"""What training minimises: losses on the logit, and the cosine heads that two of them ask for.

OC-Softmax (Zhang, Jiang, Duan 2021) and P2SGrad (Wang, Yamagishi 2021) look at
cosines between the embedding and learned directions, so for them build_network ends in `cosine_head` instead of
a dense layer. Either way the network's output is one logit, higher = more likely spoof. All take labels between
the classes, as mixup makes them. Cross-entropy and focal loss also take the logits of several columns (b, columns),
each against the same label, and give the mean.
"""

from architectures.layers import ColumnMean
from backend import keras
from errors import UserError

layers, ops = keras.layers, keras.ops

OC_SCALE, OC_BONAFIDE, OC_SPOOF = 20.0, 0.9, 0.2  # alpha and the two margins of the paper
FOCAL_GAMMA = 2.0
COSINE_LOSSES = {"oc_softmax": 1, "p2sgrad": 2}  # directions in the embedding space


@keras.saving.register_keras_serializable(package="spoof_detection")
class Cosines(layers.Layer):
    """Cosine of the embedding with learned directions: (b, n) -> (b, directions)."""

    def __init__(self, directions: int, name: str = "cosines", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        self.directions = directions

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.directions), name="kernel")

    def call(self, x):
        return ops.matmul(ops.normalize(x, axis=-1), ops.normalize(ops.convert_to_tensor(self.kernel), axis=0))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.directions)

    def get_config(self):
        return {**super().get_config(), "directions": self.directions}


@keras.saving.register_keras_serializable(package="spoof_detection")
class CosineLogit(layers.Layer):
    """Logit of cosines, (b, 1) or (b, 2) -> (b, 1).

    One direction points to bona fide speech: the logit is 0 half-way between OC-Softmax' margins. With two, in
    the order of the labels, it is their difference. The scale makes a sigmoid of it meaningful.
    """

    def __init__(self, name: str = "logit", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", **kwargs})

    def call(self, cosines):
        if cosines.shape[-1] == 1:
            return OC_SCALE * ((OC_BONAFIDE + OC_SPOOF) / 2 - cosines)
        return OC_SCALE * (cosines[:, 1:] - cosines[:, :1])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 1)


def cosine_head(network: keras.Model, loss: str) -> keras.Model:
    """The network with its last layer replaced by what a cosine loss needs."""
    last = network.get_layer("logit")
    if isinstance(last, ColumnMean):
        raise UserError(
            f"{loss} looks at one embedding, and {network.name} has several columns; bce and focal train it"
        )
    embedding = last.input
    cosines = Cosines(COSINE_LOSSES[loss])(embedding)
    return keras.Model(network.input, CosineLogit()(cosines), name=network.name)


class OCSoftmax(keras.losses.Loss):
    """Bona fide clips within one narrow cone, spoofed ones outside a wider one; on `CosineLogit` of one direction."""

    def call(self, y_true, logit):
        # alpha (m_y - cosine) (-1)^y of the paper, said with logit = alpha (mean margin - cosine)
        margin = OC_SCALE * (OC_BONAFIDE - OC_SPOOF) / 2
        y_true = ops.cast(y_true, logit.dtype)
        return ops.mean(y_true * ops.softplus(margin - logit) + (1 - y_true) * ops.softplus(margin + logit), axis=-1)


class CrossEntropy(keras.losses.Loss):
    """Binary cross-entropy; Keras' own does not set one label against the logits of several columns."""

    def call(self, y_true, logit):
        return ops.mean(ops.softplus(logit) - ops.cast(y_true, logit.dtype) * logit, axis=-1)


class Focal(keras.losses.Loss):
    """Cross-entropy times the squared share of doubt (Lin et al. 2017).

    Not Keras' own, which on some backends goes through clipped probabilities: no gradient where it is most wrong.
    """

    def call(self, y_true, logit):
        y_true = ops.cast(y_true, logit.dtype)
        wrong_if_spoof, wrong_if_bonafide = ops.sigmoid(-logit), ops.sigmoid(logit)
        spoof = ops.power(wrong_if_spoof, FOCAL_GAMMA) * ops.softplus(-logit)
        bonafide = ops.power(wrong_if_bonafide, FOCAL_GAMMA) * ops.softplus(logit)
        return ops.mean(y_true * spoof + (1 - y_true) * bonafide, axis=-1)


class P2SGrad(keras.losses.Loss):
    """Mean squared distance of both cosines from the one-hot label; on the output of `Cosines`, (b, 2)."""

    def call(self, y_true, cosines):
        y_true = ops.cast(y_true, cosines.dtype)
        return ops.sum(ops.square(cosines - ops.concatenate([1 - y_true, y_true], axis=-1)), axis=-1)


def make_loss(name: str) -> keras.losses.Loss:
    """The loss of a name in config.CHOICES."""
    return {
        "bce": CrossEntropy(name="bce"),
        "focal": Focal(name="focal"),
        "oc_softmax": OCSoftmax(name="oc_softmax"),
        "p2sgrad": P2SGrad(name="p2sgrad"),
    }[name]


class ClassAccuracy(keras.metrics.Mean):
    """Share of logits, or pairs of cosines, on the right side; a blend of labels counts as its greater part."""

    def __init__(self, of_cosines: bool = False, name: str = "accuracy"):
        super().__init__(name=name)
        self.of_cosines = of_cosines

    def update_state(self, y_true, outputs, sample_weight=None):
        logits = outputs[:, 1:] - outputs[:, :1] if self.of_cosines else outputs
        right = ops.equal(ops.cast(y_true, "float32") > 0.5, ops.cast(logits, "float32") > 0)
        return super().update_state(ops.cast(right, "float32"))
