"""The detector that ships: a small ResMax for speech from anywhere, trained on demo pages and on copies made here.

Everything in it serves the pages and systems it has not heard: the mean of every frequency is removed, so that
microphones and codecs say little; three augmentations in a row hit both classes; pages and attacks count evenly; and
two fifths of each epoch come from --extra, recordings of other voices and copies of recordings through vocoders.
TRAINING.md says what it reaches, what each part brought, and how it is made again.

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
        epochs=(8,),
        learning_rate=(1e-3,),
        schedule="cosine",
        batch_size=32,
        balance="groups",
        extra_share=0.4,
        weight_decay=0.01,
        augment=("noise", "codec", "band_limit", "reverberation", "equalise", "level", "shorten", "speed"),
        augment_rounds=3,
        spec_augment=1,
        swa=0.25,
        precision="mixed_bfloat16",
    ),
)
