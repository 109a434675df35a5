# SPDX-License-Identifier: Apache-2.0
"""`tf.compat.v1.keras`."""

from backstride.compat.v1.keras import backend as backend
