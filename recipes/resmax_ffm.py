"""ResMax with mixup and frequency feature masking: LA eval EER 2.08 % (mean of 3 runs), 4.45 % without either.

I.-Y. Kwak et al., "Low-quality Fake Audio Detection through Frequency Feature Masking", DDAM 2022; the authors'
later variant of the network (pooling head, equal kernels, dropout 0.5, 286 K parameters). CQT of 100 bins, mixup of
strength 0.8, all bins from one drawn between the 80th and the 87th up hidden; batch 16, 70 epochs, bona fide weight
5, rate 1e-3 -> 1e-5 sigmoidal. Published on ASVspoof 2019 LA: none 4.45 %, mixup 3.51 %, mixup and mask 2.08 %.

    python main.py --recipe resmax_ffm --data LA --split official     # the paper's protocol
    python main.py --recipe resmax_ffm --data LA                      # chooses on attacks it never trained on

The paper blends features, this blends waveforms. Its clips are 9 s here, as in the first ResMax paper.
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "LA eval EER 2.08 % (mean of 3)"
RECIPE = Config(
    recipe="resmax_ffm",
    model="resmax_gap",
    features=feature_config("cqt"),
    training=TrainingConfig(
        epochs=(70,),
        patience=70,
        learning_rate=(1e-3,),
        final_learning_rate=1e-5,
        batch_size=16,
        bonafide_weight=5.0,
        clip_norm=None,
        mixup=0.8,
        mask_high=(0.80, 0.87),
    ),
)
