"""Self-supervised pretraining of image encoders on chest radiographs."""

__version__ = "0.1.0"
