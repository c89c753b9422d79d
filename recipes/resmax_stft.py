"""ResMax on the log-STFT of 4 s, (250, 513, 1), in two stages: 40 % of the data, then all of it.

The progressive fine-tuning of the first system this project was asked for: window 1024, hop 256, log power,
Adam at 1e-4, batch 16; a stratified 40 % first, then everything at a tenth of the rate, from the best weights.
That system's network was 22 times larger than the published ResMax; this is the published one. Its figure
(3.2 % EER) is not a target here: the ResMax paper found the STFT clearly worse than the CQT on LA.

    python main.py --recipe resmax_stft --data LA
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "-"
RECIPE = Config(
    recipe="resmax_stft",
    model="resmax",
    features=feature_config("log_stft"),
    training=TrainingConfig(
        stages=(0.4, 1.0),
        epochs=(20, 20),
        learning_rate=(1e-4, 1e-5),
        final_learning_rate=1e-6,
        batch_size=16,
        patience=8,
    ),
)
