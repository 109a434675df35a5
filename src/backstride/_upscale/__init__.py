# SPDX-License-Identifier: Apache-2.0
"""Super-resolution, from a network written as a TensorFlow 1 script would be: `backstride demo` trains it on
photographs, `backstride upscale` uses the result."""
