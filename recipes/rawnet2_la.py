"""RawNet2 on raw samples, the ASVspoof 2021 configuration: 17.6 M parameters, a single one about 4.2-4.7 % on LA.

H. Tak et al., "End-to-end anti-spoofing with RawNet2", ICASSP 2021. 64,600 samples; Adam 1e-4, weight decay 1e-4,
batch 32, 100 epochs, cross-entropy weights 0.9 bona fide / 0.1 spoof. The 1.12 % often quoted for it is a fusion of
three RawNet2 with an LFCC-GMM.

    python main.py --recipe rawnet2_la --data LA --split official     # the paper's protocol
    python main.py --recipe rawnet2_la --data LA --augment rawboost5  # RawBoost, made for this network

Ours differs: Keras decouples the decay from the gradient, which at this rate shrinks the weights by 0.08 % over the
whole run, practically not at all (inside Adam, as published, it acts).
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "LA eval EER 4.2-4.7 % (1.12 % is a fusion)"
RECIPE = Config(
    recipe="rawnet2_la",
    model="rawnet2",
    features=feature_config("raw"),
    training=TrainingConfig(
        epochs=(100,),
        patience=100,
        learning_rate=(1e-4,),
        schedule="constant",
        batch_size=32,
        bonafide_weight=9.0,
        weight_decay=1e-4,
        clip_norm=None,
    ),
)
