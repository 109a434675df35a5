# SPDX-License-Identifier: Apache-2.0
"""`tf.keras`, as far as it documents transposed convolutions as functions."""

from backstride.keras import backend as backend
