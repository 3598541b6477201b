"""The shared key-frame codec: a hyperprior image codec whose synthesis is trained to please the eye."""
