"""Training over items of any modality: data, stages and encoders."""
