"""LCNN with LSTM-sum back end on LFCC: 276 K parameters, LA eval EER 1.92-3.10 % over six seeds.

X. Wang, J. Yamagishi, "A Comparative Study on Recent Neural Spoofing Countermeasures for Synthetic Speech
Detection", Interspeech 2021: the best system there with one of the smallest networks, and the paper that shows how
much a seed changes (t-DCF 0.052-0.075). LFCC of 20 with deltas, P2SGrad on a 64-dimensional embedding, Adam 3e-4
halved every ten epochs, batch 64, dropout 0.7.

    python main.py --recipe lcnn_la --data LA --split official        # the paper's protocol
    python main.py --recipe lcnn_la --data LA --seed 2                # and 3, 4 ...: look at the spread

The paper reads whole clips of any length, this reads 4 s (shorter clips are repeated) with one window at a time.
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "LA eval EER 1.92-3.10 % (six seeds)"
RECIPE = Config(
    recipe="lcnn_la",
    model="lcnn",
    model_args={"embedding": 64},
    features=feature_config("lfcc"),
    training=TrainingConfig(
        epochs=(50,),
        patience=15,
        learning_rate=(3e-4,),
        schedule="halving",
        final_learning_rate=1e-6,
        batch_size=64,
        balance="none",
        loss="p2sgrad",
        clip_norm=None,
    ),
)
