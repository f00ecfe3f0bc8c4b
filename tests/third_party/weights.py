"""The weights of other frameworks as parameters of Reel, for one layer and direction. Arrays may be
those of numpy or tensors of PyTorch, so that gradients pass through."""
import sys

from reel_driver import blocks, np

KERAS_GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 1, 2, 3]}


def from_keras(kind, kernel, recurrent_kernel, bias=None):
    """Keras has inputs in rows and the gates of a GRU in the order z, r, h. Its bias [2, 3 H] is
    that of a GRU whose reset gate acts after the product."""
    order = KERAS_GATES[kind]
    units, gates = recurrent_kernel.shape[0], len(order)
    params = {"w_ih": blocks(kernel.T, order, gates),
              "w_hh": blocks(recurrent_kernel.T, order, gates)}
    if bias is None:
        bias = 0 * recurrent_kernel[0]
    of_input, of_state = (bias[0], bias[1]) if bias.ndim == 2 else (bias, 0 * bias)
    return {**params, **joined_biases(kind, blocks(of_input, order, gates),
                                      blocks(of_state, order, gates), units)}


def from_torch(kind, weights, units):
    """`weights` by the names weight_ih, weight_hh, weight_hr, bias_ih, bias_hh; biases that do not
    exist are 0."""
    params = {"w_ih": weights["weight_ih"], "w_hh": weights["weight_hh"]}
    if "weight_hr" in weights:
        params["w_hr"] = weights["weight_hr"]
    zeros = 0 * params["w_ih"][:, 0]
    return {**params, **joined_biases(kind, weights.get("bias_ih", zeros),
                                      weights.get("bias_hh", zeros), units)}


def joined_biases(kind, of_input, of_state, units):
    """The bias of two, in Reel's order of gates; a GRU keeps the candidate's of the state."""
    if kind != "gru":
        return {"b": of_input + of_state}
    end = 2 * units
    join = np.concatenate if isinstance(of_input, np.ndarray) else sys.modules["torch"].cat
    return {"b": join([(of_input + of_state)[:end], of_input[end:]]), "b_hn": of_state[end:]}
