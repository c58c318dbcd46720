"""What the tests of the Keras adapter share with those of TensorFlow's, which are collected later."""

from __future__ import annotations

from support.threads import one_thread

one_thread()
