"""mer_ray: emotion tags for whole music catalogues, on Ray."""

__version__ = "0.3.0"
