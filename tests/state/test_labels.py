"""Known frauds inside a profile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from state.layout import LABEL, TERMINAL_FRAUDS, TERMINAL_LAYOUT, TERMINAL_PROFILE, USER_FRAUDS, USER_PROFILE
from state.terminal_kernel import label_terminal
from state.user_kernel import label_user
from tests.state.histories import START_MS

KINDS = [(USER_PROFILE, label_user, USER_FRAUDS), (TERMINAL_PROFILE, label_terminal, TERMINAL_FRAUDS)]
