"""A small residual network for speech from anywhere, trained on demo pages and on copies made here: what ships.

Everything in it serves the pages and systems it has not heard: the network sees fine structure alone, for formants,
microphones and noise floors are each page's own; augmentations, one on top of the other, hit both classes (one that is
named three times is drawn three times as often); pages and attacks count evenly; two fifths of each epoch are pairs, a
recording of --extra and a copy of it, cropped and augmented alike. Two columns learn side by side, of which one does
not see the slope that resampling leaves below 8 kHz; half of the channels of each block's first convolution are
normalised by the piece at hand, which takes a page's style away. TRAINING.md has the figures.

    python main.py --recipe resnet_wild --data wild --extra corpus            # one quarter of the pages measures
    python cross_validate.py --recipe resnet_wild --data wild --extra corpus  # each of them in turn
"""

from config import Config, FeatureConfig, TrainingConfig

PUBLISHED = "-"
RECIPE = Config(
    recipe="resnet_wild",
    model="small_resnet",
    model_args={"width": 0.5, "sees": "fine_to_7khz,fine", "instance_norm": 0.5},
    features=FeatureConfig("log_stft", 32_000, window=512),
    training=TrainingConfig(
        split="pages-1-of-4",
        select="last",  # what measures chooses nothing
        stages=(1.0, 1.0),  # the rate falls twice: five epochs were what there was time for, then five more
        epochs=(5, 5),
        learning_rate=(2e-3, 2e-3),
        schedule="cosine",
        batch_size=32,
        balance="groups",
        extra_share=0.3,
        pairs=0.4,
        weight_decay=0.01,
        augment=(
            *("noise", "codec", "band_limit", "reverberation", "speed"),
            *("equalise", "level", "shorten") * 3,
        ),
        augment_probability=0.6,
        augment_rounds=3,
        precision="mixed_bfloat16",
    ),
)
