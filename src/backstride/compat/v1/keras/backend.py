# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1.keras.backend`."""

from backstride.keras.backend import *  # noqa: F403
from backstride.keras.backend import __all__ as __all__
