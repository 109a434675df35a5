# SPDX-License-Identifier: Apache-2.0
"""`tf.compat`."""

from backstride.compat import v1 as v1
