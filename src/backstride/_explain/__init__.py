# SPDX-License-Identifier: Apache-2.0
"""What a transposed convolution layer does, in numbers, words and pictures: `backstride explain`."""
