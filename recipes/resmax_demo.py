"""ResMax on the log-STFT, small enough to train on the demo corpus in three to four minutes on two cores.

What `python main.py` runs when it is given no data. The figures say that the machinery works, nothing more:
the corpus is synthetic throughout.

    python main.py
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "-"
RECIPE = Config(
    recipe="resmax_demo",
    model="resmax",
    features=feature_config("log_stft"),
    training=TrainingConfig(
        split="official",
        epochs=(6,),
        schedule="cosine",
        batch_size=16,
    ),
)
