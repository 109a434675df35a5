# SPDX-License-Identifier: Apache-2.0
"""`backstride demo --quick`: a photograph down to 1/32 and back up through the upsampling chain of FCN-8s."""
