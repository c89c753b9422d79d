"""A small ResMax for speech from anywhere, trained on demo pages and on copies made here: what is to ship.

Everything in it serves the pages and systems it has not heard: the mean of every frequency is removed, so that
microphones and codecs say little; augmentations, one on top of the other, hit both classes; pages and attacks count
evenly; and two fifths of each epoch come from --extra, recordings of other voices and copies of recordings through
vocoders. Four epochs are short: leaving pages out, 28.5 % EER on 2,097 clips of 35 pages [23.7, 37.1 over pages].

    python main.py --recipe resmax_wild --data wild --extra corpus            # one quarter of the pages measures
    python cross_validate.py --recipe resmax_wild --data wild --extra corpus  # each of them in turn
"""

from config import Config, FeatureConfig, TrainingConfig

PUBLISHED = "-"
RECIPE = Config(
    recipe="resmax_wild",
    model="small_resmax",
    features=FeatureConfig("log_stft", window=512),
    training=TrainingConfig(
        split="pages-1-of-4",
        epochs=(4,),
        learning_rate=(1.5e-3,),
        schedule="cosine",
        batch_size=32,
        balance="groups",
        extra_share=0.4,
        weight_decay=0.01,
        augment=("noise", "codec", "band_limit", "reverberation", "equalise", "level", "shorten", "speed"),
        augment_probability=0.4,
        augment_rounds=2,
        spec_augment=1,
        mask_probability=0.4,
        swa=0.25,
        precision="mixed_bfloat16",
    ),
)
