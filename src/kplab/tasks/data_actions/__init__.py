"""Actions of ``kplab data``, one module each."""
