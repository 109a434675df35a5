# SPDX-License-Identifier: Apache-2.0
"""`tf.keras`, as far as it documents transposed convolutions as functions, and what their variables are made with."""

from backstride import constraints as constraints
from backstride import initializers as initializers
from backstride import regularizers as regularizers
from backstride.keras import backend as backend
