"""One trainer; the losses and stages of each method."""
