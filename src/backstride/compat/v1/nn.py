# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1.nn`."""

from backstride.nn import *  # noqa: F403
from backstride.nn import __all__ as __all__
