# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1.keras`."""

from backstride.compat.v1.keras import backend as backend
from backstride.keras import constraints as constraints
from backstride.keras import initializers as initializers
from backstride.keras import regularizers as regularizers
