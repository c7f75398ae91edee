"""Vision-language models of transformers as backbones: one small file a family."""
