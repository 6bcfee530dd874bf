"""The family `towers`: an image model of timm and a text model of transformers, joined by heads."""
