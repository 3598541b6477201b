"""Quality metrics on decoded frames, in plain torch with shipped weights."""
