"""RES-EfficientCNN: EfficientNet-B0 with residual adapters on mel images, bona fide clips multiplied.

The source reports 99.85 % accuracy on a random 70/15/15 split of one partition, which shares every speaker and
every attack between training and test: not a target. Adam, cross-entropy, batch 16, 10 epochs; 2,580 bona fide clips
became 7,422 by augmentation, which is 1.8767 copies of each.

    python main.py --recipe res_efficient_cnn --data LA --model-arg weights=imagenet   # Keras downloads 16 MB
    python main.py --recipe res_efficient_cnn --data LA                                # from scratch, and says so
    python main.py --recipe res_efficient_cnn --data LA --split random-70-15-15 --augment-probability 0   # as there

The source changes bona fide clips alone, so that a trace of the augmentation gives the class away. Here half of
all clips are changed as well, of both classes; the last command goes back to the source.
"""

from config import Config, TrainingConfig, feature_config

PUBLISHED = "accuracy 99.85 % (random split: leaks)"
RECIPE = Config(
    recipe="res_efficient_cnn",
    model="res_efficient_cnn",
    features=feature_config("mel"),
    training=TrainingConfig(
        epochs=(10,),
        patience=10,
        learning_rate=(1e-4,),
        final_learning_rate=1e-6,
        schedule="cosine",
        batch_size=16,
        augment=("noise", "shift", "speed", "pitch"),
        bonafide_copies=1.8767,
    ),
)
