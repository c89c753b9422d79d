"""RES-EfficientCNN: EfficientNet-B0 (Tan & Le, ICML 2019) with residual adapters on a mel spectrogram as an image.

The body is that of keras.applications. An adapter is a bottleneck of 1x1 convolutions whose result is added to its
input, so that pretrained filters can bend to spectrograms. One after every stage also feeds the shifts of the batch
norms that end EfficientNet's blocks: without a nonlinearity there, the next batch norm cancels them and their
gradient is zero. Where the body's weights come from is always said: nothing is downloaded unless `weights` is
"imagenet".

The one channel becomes an image by fixed constants, equal in training and in every export: log power -14 (below the
mel floor of ln 1e-6) is black, 7 (loud speech) is white, the three colours are equal, and each is scaled as
ImageNet's pictures were. Other front ends pass the same map; from scratch the first batch norm makes up for it.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from architectures.layers import BATCH_NORM_MOMENTUM, logit_layer
from backend import keras
from errors import UserError

layers = keras.layers

BLACK, WHITE = -14.0, 7.0  # natural logarithm of power
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
WEIGHTS_URL = "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5"
# the last layer of each of the seven stages in keras.applications
STAGE_ENDS = (
    "block1a_project_bn",
    "block2b_add",
    "block3b_add",
    "block4c_add",
    "block5c_add",
    "block6d_add",
    "block7a_project_bn",
)


def res_efficient_cnn(
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    adapter_stages: Sequence[int] = (1, 2, 3, 4, 5, 6, 7),
    adapter_reduction: int = 4,
    dropout: float = 0.2,
) -> keras.Model:
    """EfficientNet-B0 with an adapter after each of its seven stages: (time, frequency, 1) -> logit.

    `weights`: None starts from scratch, "imagenet" lets Keras download its weights, else the path of a weights
    file of the body without its top (what "imagenet" downloads, or `efficient_net(...).save_weights`).
    """
    if wrong := sorted(set(adapter_stages) - set(range(1, len(STAGE_ENDS) + 1))):
        raise UserError(f"res_efficient_cnn: no stage {wrong[0]} for an adapter; valid: 1 to {len(STAGE_ENDS)}")
    adapted = [STAGE_ENDS[stage - 1] for stage in adapter_stages]
    source = efficient_net(input_shape[:2], weights)
    first = next(layer.name for layer in source.layers if not isinstance(layer, layers.InputLayer))

    def call(layer, x, *others, **arguments):
        if layer.name == first:
            return _as_image(x)
        if isinstance(layer, layers.Rescaling | layers.Normalization):
            return x  # the image is scaled already; what these hold differs with the source of the weights
        x = layer(x, *others, **arguments)
        return residual_adapter(x, adapter_reduction, f"adapter_{layer.name}") if layer.name in adapted else x

    inputs = keras.Input(input_shape, name="features")
    # layers of its own, for those of `source` would go on showing its tensors as their outputs
    body = keras.models.clone_model(source, inputs, call_function=call)
    for layer in body.layers:
        if layer.weights and not layer.name.startswith("adapter"):
            layer.set_weights(source.get_layer(layer.name).get_weights())
    x = layers.GlobalAveragePooling2D()(body.output)  # (b, 1280)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, logit_layer()(x), name="res_efficient_cnn")


def efficient_net(size: Sequence[int], weights: str | None = None) -> keras.Model:
    """EfficientNet-B0 without its top, (time, frequency, 3) -> (time / 32, frequency / 32, 1280), and its weights."""
    if min(size) < 32:
        raise ValueError("EfficientNet needs at least 32 frames and 32 bands")
    shape = (*size, 3)
    if weights == "imagenet":
        try:
            body = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=shape)
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise UserError(
                f"res_efficient_cnn: no ImageNet weights ({_first_line(error)}); fetch {WEIGHTS_URL} on a "
                "connected machine and give its path as `weights`, or leave `weights` out to start from scratch"
            ) from error
    else:
        body = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=shape)
        if weights:
            _load_weights(body, Path(weights))
    origin = f"from the weights {weights}" if weights else "from scratch, no pretrained weights"
    print(f"res_efficient_cnn: EfficientNet-B0 starts {origin}")
    for layer in body.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = BATCH_NORM_MOMENTUM
    return body


def residual_adapter(x, reduction: int, name: str):
    """x + up(swish(down(x))) with 1x1 convolutions: (b, t, f, c) -> (b, t, f, c)."""
    down = layers.Conv2D(max(1, x.shape[-1] // reduction), 1, activation="swish", name=f"{name}_down")(x)
    # starts small, so that a pretrained body is hardly changed; from zero, no gradient would reach `down`
    small = keras.initializers.RandomNormal(stddev=0.01)
    # no bias: the batch norm that follows would cancel it
    up = layers.Conv2D(x.shape[-1], 1, use_bias=False, kernel_initializer=small, name=f"{name}_up")(down)
    return layers.Add(name=f"{name}_add")([x, up])


def _as_image(x):
    """Log power (b, t, f, 1) -> an image (b, t, f, 3) as EfficientNet's first convolution knows it."""
    span = WHITE - BLACK
    x = layers.Rescaling(1 / span, offset=-BLACK / span, name="brightness")(x)
    x = layers.Concatenate(name="colours")([x, x, x])
    variance = tuple(deviation**2 for deviation in IMAGENET_DEVIATION)
    return layers.Normalization(mean=IMAGENET_MEAN, variance=variance, name="imagenet_scale")(x)


def _load_weights(body: keras.Model, path: Path) -> None:
    if not path.is_file():
        raise UserError(f'res_efficient_cnn: no weights file {path}; valid: a path, "imagenet", or none (from scratch)')
    try:
        with warnings.catch_warnings(action="ignore"):  # one for each layer that the error then counts
            body.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = _first_line(error).split(" Example error message")[0]
        raise UserError(f"{path}: does not hold weights of EfficientNet-B0 without top ({reason})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
