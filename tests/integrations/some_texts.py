"""What the tests of every library embed."""

TEXTS = ["two dogs in the snow", "a red bicycle", "the mean temperature by month"]
