"""Adam, alone or made to look for flat minima (SAM: Foret et al. 2021).

Sharpness-aware minimisation needs two gradients of one batch: at the weights, and a step of length `radius` up
the slope from them. It is written as an optimizer that takes them in turn, so that plain `fit` drives it on every
backend; data_generator gives each batch twice.
"""

from backend import keras

ops = keras.ops


def make_optimizer(sam: float | None, **arguments) -> keras.optimizers.Adam:
    """Adam with these arguments; with a radius, the sharpness-aware one."""
    if sam is None:
        return keras.optimizers.Adam(**arguments)
    if arguments.get("weight_decay"):
        arguments["weight_decay"] /= 2  # Keras decays at both steps
    return SharpnessAwareAdam(sam, **arguments)


class SharpnessAwareAdam(keras.optimizers.Adam):
    """Every odd step climbs to the steepest place within `radius`, every even step descends with its gradient."""

    def __init__(self, radius: float, name: str = "sharpness_aware_adam", **arguments):
        super().__init__(name=name, **arguments)
        self.radius = radius

    def build(self, variables):
        super().build(variables)
        self._climbed = self.add_optimizer_variables(variables, "climbed")

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # here, not in apply: after clipping, so that the step up has its full length
        squares = [ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in grads]
        self._slope = ops.sqrt(sum(squares)) + 1e-12
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        slots = self._momentums[index], self._velocities[index], self._climbed[index]
        momentum, velocity, climbed = map(ops.convert_to_tensor, slots)
        cast = {"dtype": variable.dtype}
        gradient, rate = ops.cast(gradient, **cast), ops.cast(learning_rate, **cast)
        climbing = ops.equal(self.iterations % 2, 0)
        step = ops.cast(self.iterations // 2 + 1, **cast)

        climb = ops.cast(self.radius / self._slope, **cast) * gradient
        mean = momentum + (1 - self.beta_1) * (gradient - momentum)
        square = velocity + (1 - self.beta_2) * (ops.square(gradient) - velocity)
        scale = ops.sqrt(1 - self.beta_2**step) / (1 - self.beta_1**step)
        descent = -climbed - rate * scale * mean / (ops.sqrt(square) + self.epsilon)

        self.assign_add(variable, ops.where(climbing, climb, descent))
        kept = momentum, velocity, climb
        for slot, up, down in zip(slots, kept, (mean, square, ops.zeros_like(climb)), strict=True):
            self.assign(slot, ops.where(climbing, up, down))

    def get_config(self):
        return {**super().get_config(), "radius": self.radius}
