"""ResMax on CQT as published: 262 K parameters, LA eval EER 2.19 % (mean of 10 runs).

I.-Y. Kwak et al., "ResMax: Detecting Voice Spoofing Attacks with Residual Network and Max Feature Map",
ICPR 2020. CQT of 100 bins from 1 Hz over 9 s, shorter clips repeated, no normalisation; Adam, bona fide weight
3, dropout 0.7, 100 epochs, rate 1e-3 -> 1e-5 sigmoidal, no augmentation. Published on ASVspoof 2019 LA: dev
0.56 % / t-DCF 0.0179, eval 2.19 % / 0.0600. The batch size is from the authors' later code.

    python main.py --recipe resmax_la --data LA --split official      # the paper's protocol
    python main.py --recipe resmax_la --data LA                       # chooses on attacks it never trained on

The paper trains on all six attacks and its dev repeats them. Without `--split official` two attacks are held
out for choosing the model: dev EER then says something about new attacks, with a third of the fakes unseen.
Ours differs in one logit for two softmax units and in batch norm's momentum (0.9).
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "LA eval EER 2.19 % (mean of 10)"
RECIPE = Config(
    recipe="resmax_la",
    model="resmax",
    features=feature_config("cqt"),
    training=TrainingConfig(
        epochs=(100,),
        patience=100,
        learning_rate=(1e-3,),
        final_learning_rate=1e-5,
        batch_size=16,
        bonafide_weight=3.0,
        clip_norm=None,
    ),
)
