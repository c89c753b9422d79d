"""One file for each network beside ResMax, a function `(input_shape, **arguments) -> keras.Model` in it.

What model.py expects of such a function: the features of a clip go in, one raw logit named `logit` comes out, and
what enters that last layer is the network's embedding (batch, size). layers.py holds what several networks share.
"""
