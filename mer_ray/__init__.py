"""mer_ray: emotion tags for whole music catalogues, on Ray."""

__version__ = "0.1.0"
