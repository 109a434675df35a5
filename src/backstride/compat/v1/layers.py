# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1.layers`."""

from backstride.layers import *  # noqa: F403
from backstride.layers import __all__ as __all__
