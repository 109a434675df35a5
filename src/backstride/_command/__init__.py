# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments, files in and out, progress, and exit codes."""
