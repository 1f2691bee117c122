"""Classical descriptors of music, computed from a window's samples: no weights, numpy and scipy alone.

``spectra`` is what is computed once a window; ``timbre``, ``rhythm`` and ``tonal`` describe it in groups of columns.
"""
