"""Res2Net-50 on mel images of In-the-Wild, split by speaker.

The source reports about 99 % accuracy on a random 80/10/10 split, in which the same people stand on both sides (54
speakers have 31,779 clips): such a network may know the voices and their channels rather than the fakes. Split by
speaker it says something. Adam 1e-4, cross-entropy, 10 epochs; mel of 128 bands resized to 224 x 224.

    python main.py --recipe res2net50_itw --data release_in_the_wild
    python main.py --recipe res2net50_itw --data release_in_the_wild --split random-80-10-10   # as there
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "accuracy about 99 % (random split: leaks)"
RECIPE = Config(
    recipe="res2net50_itw",
    model="res2net50",
    features=feature_config("mel"),
    training=TrainingConfig(
        split="speaker-disjoint",
        epochs=(10,),
        patience=10,
        learning_rate=(1e-4,),
        schedule="constant",
        batch_size=32,
    ),
)
