"""What functions take, and the sentences that refuse the rest."""

import numpy as np
import pytest

from homojax import arguments


@pytest.mark.parametrize("coerce", [arguments.as_float, arguments.as_square])
def test_floats_keep_their_dtype_and_the_rest_gets_the_default(coerce, dtype):
    assert coerce(np.eye(2, dtype=dtype)).dtype == dtype
    assert coerce(np.eye(2, dtype=int)).dtype == coerce(np.eye(2, dtype=bool)).dtype == np.float64


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 2), (1, 1), (0, 0)])
def test_what_is_not_square_or_has_no_detail_is_refused_by_name_and_shape(shape):
    with pytest.raises(ValueError, match="logits must .*" + repr(list(shape)).replace("[", r"\[")):
        arguments.as_square(np.zeros(shape), "logits")


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 2), (3, 1, 2), (3, 1, 1)])
def test_what_is_not_a_stack_of_layers_is_refused_by_name(shape):
    with pytest.raises(ValueError, match="layers must "):
        arguments.as_stack(np.zeros(shape), "layers")


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="real, got complex"):
        arguments.as_float([[1 + 2j, 0], [0, 1]])
