"""The shared key-frame codec: an image codec whose synthesis is trained to please the eye."""
